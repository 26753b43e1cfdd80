#![no_main]

#[path = "../properties/hpack_roundtrip.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
