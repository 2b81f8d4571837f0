//! Networks, written once over layers.
