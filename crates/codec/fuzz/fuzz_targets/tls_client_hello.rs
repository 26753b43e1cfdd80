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
    let whole = ClientHelloParser::new().parse(input);
    match early {
        // A hello is final; bytes after it are not its own.
        Ok(Some(_)) | Err(_) => assert_eq!(early, whole),
        // It may wait for a record to be whole where a fresh parser already sees what is wrong with it.
        Ok(None) => assert!(late == whole || late == Ok(None) && whole.is_err()),
    }
});
