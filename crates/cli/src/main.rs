//! The `bessemer` program.

fn main() {}
