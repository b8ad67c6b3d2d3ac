//! windlass-client
