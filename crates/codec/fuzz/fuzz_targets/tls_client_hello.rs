#![no_main]

#[path = "../properties/tls_client_hello.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
