//! The engine without a checkpoint: scheduling as a pure function, and the thread over a network small enough to be
//! checked by hand.

mod engine;
mod history;
mod prefixes;
mod scheduling;
mod text;
