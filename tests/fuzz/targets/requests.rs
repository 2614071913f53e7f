//! Requests and responses of every API and version: reading never panics nor takes more memory than a frame is allowed, and what was
//! read comes back when it is written and read again.
//!
//! Input: `api | version | which | body`. Bit 0 of `which` means a response, bit 1 a whole frame of its own making, header included.

#![cfg_attr(feature = "libfuzzer", no_main)]

use bytes::Bytes;
use vitalsql_fuzz::memory;
use vitalsql_fuzz::wire::{APIS, RequestHeader, decode_request, decode_response, encode_request, encode_response};

/// What elements may take (the budget of `wire`), twice: a list that grows holds the old one beside the new one. Strings and names of
/// places come on top, within a multiple of the frame.
fn allowed(frame: usize) -> usize {
    (2 * (64 << 20)).min(4096 + frame * 600) + 8 * frame
}

fn run(data: &[u8]) {
    let [api, version, which, body @ ..] = data else { return };
    let api = &APIS[usize::from(*api) % APIS.len()];
    let versions = i16::try_from(usize::from(*version) % (api.max - api.min + 1) as usize).expect("a small number");
    let version = api.min + versions;
    if which & 1 == 1 {
        let mut frame = 7i32.to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        let frame = Bytes::from(frame);
        let Ok((_, response)) = memory::most(allowed(frame.len()), || decode_response(api.key, version, frame.clone())) else { return };
        let header = RequestHeader { api_key: api.key.code(), api_version: version, correlation_id: 7, client_id: None };
        let again = encode_response(&header, &response).slice(4..);
        let (_, second) = decode_response(api.key, version, again.clone()).expect("what we write can be read");
        assert_eq!(again, encode_response(&header, &second).slice(4..), "{} v{version}", api.name);
        return;
    }
    let frame = if which & 2 == 2 {
        Bytes::copy_from_slice(body)
    } else {
        let mut frame = [api.key.code().to_be_bytes(), version.to_be_bytes()].concat();
        frame.extend_from_slice(&[0, 0, 0, 1, 0, 1, b'c']);
        if api.is_flexible(version) {
            frame.push(0);
        }
        frame.extend_from_slice(body);
        frame.into()
    };
    let Ok((header, request)) = memory::most(allowed(frame.len()), || decode_request(frame.clone())) else { return };
    let again = encode_request(&header, &request).slice(4..);
    let (second_header, second) = decode_request(again.clone()).expect("what we write can be read");
    assert_eq!(header, second_header);
    assert_eq!(again, encode_request(&second_header, &second).slice(4..), "{} v{version}", api.name);
}

vitalsql_fuzz::target!(run);
