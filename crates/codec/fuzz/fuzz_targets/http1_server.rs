#![no_main]

#[path = "../properties/http1_server.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
