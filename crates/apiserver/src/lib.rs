//! windlass-apiserver
