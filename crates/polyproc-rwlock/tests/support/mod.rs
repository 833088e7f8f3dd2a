//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(unused_imports, dead_code, reason = "each test binary uses its part of this")]

pub(crate) use polyproc_testing::*;
