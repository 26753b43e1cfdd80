#![no_main]

#[path = "../properties/hpack_decode.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
