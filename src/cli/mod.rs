//! The command line: which commands there are, and what their exit codes mean.

pub mod output;
pub mod send;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    Failed = 1,
    Usage = 2,
    BadConfig = 64,
    NotReachable = 69,
}
