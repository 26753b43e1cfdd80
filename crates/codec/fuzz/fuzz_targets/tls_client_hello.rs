//! Whatever a TLS client sends first: nothing panics, and an answer does not depend on how the bytes arrived.

#![no_main]

use codec::tls_client_hello::ClientHelloParser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, input)) = data.split_first() else { return };
    let first = &input[..usize::from(*cut) % (input.len() + 1)];
    let mut parser = ClientHelloParser::new();
    let early = parser.parse(first);
    let late = parser.parse(input);
    if !matches!(early, Ok(None)) {
        assert_eq!(early, ClientHelloParser::new().parse(input));
    } else {
        assert_eq!(late, ClientHelloParser::new().parse(input));
    }
});
