//! Black-box tests of Windlass.
