//! Linear layers: packed weights times activations.
