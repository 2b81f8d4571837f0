//! Memory pool, transfer queue and command ring: whatever is on, off, switched or failing, tokens are the same.

mod auto;
mod faults;
mod prefixes;
mod steady;
mod support;
mod switches;
