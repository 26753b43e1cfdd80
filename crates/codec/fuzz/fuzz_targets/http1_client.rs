#![no_main]

#[path = "../properties/http1_client.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
