//! The program as its users see it: arguments in; output, messages and exit codes out.

mod checkpoint;
mod config;
mod generate;
mod measure;
mod operator;
mod run;
mod selftest;
mod serve;
mod soak;
mod top;
mod wrong_usage;
