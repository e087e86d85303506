//! wire
#![no_std]

pub mod datapath_abi;
