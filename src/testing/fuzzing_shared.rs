//! Sessions of another framework's form, read and written again.

use std::{collections::BTreeMap, time::Duration};

use serde_json::value::RawValue;

use crate::{
    format::{CookieAttributes, Django, Express, Flask, Sharing},
    record::Record,
};

const COOKIE: CookieAttributes<'static> = CookieAttributes {
    path: "/",
    domain: None,
    http_only: true,
    secure: true,
    same_site: "lax",
};

/// What each live format reads of a value, it writes so that it reads the same again.
pub fn shared_session(input: &[u8]) {
    for sharing in [
        Sharing::from(Flask::new()).with_user_at("/user_id"),
        Sharing::from(Express::new(["secret"])).with_user_at("/passport/user"),
        Sharing::from(Django::new()),
    ] {
        let Ok(json) = sharing.decode(input) else {
            continue;
        };
        if Record::decode(&json.clone().into()).is_err() {
            continue;
        }
        let before = entries(&json);
        let max_age = before
            .contains_key("_permanent")
            .then_some(Duration::from_secs(3600));
        // A text may have half a surrogate pair, which only JSON can hold.
        let Ok(written) = sharing.encode(&json, Some(input), max_age, COOKIE) else {
            continue;
        };
        let again = sharing.decode(&written).expect("written by this crate");
        assert_eq!(entries(&again), before);
        assert_eq!(
            sharing.encode(&again, Some(&written), max_age, COOKIE).ok(),
            Some(written)
        );
    }
}

/// But the timeouts, which may depend on the time.
fn entries(json: &str) -> BTreeMap<String, String> {
    let pairs: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).expect("an object");
    let pairs = pairs.into_iter().filter(|(key, _)| key != "_idle");
    pairs
        .map(|(key, value)| (key, value.get().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [&[u8]; 8] = [
        br#"{"_permanent":true,"user_id":42,"name":"Zo\u00eb","big":1180591620717411303424}"#,
        br#"{"cookie":{"originalMaxAge":60000},"passport":{"user":7},"a":[1.50,null],"_axum_session":{"user":"7","created":5}}"#,
        br#"{"_session_expiry":300,"_auth_user_id":"1","_user":{"x":1},"_foreign:_rev":2}"#,
        br#"{"cookie":{},"_axum_session":{"rotated":9999999999999,"grace":1,"user":"7","data":{"cart":[1]}}}"#,
        b"\x84\xa3bin\xc4\x03\x01\x02\x03\xa3ext\xd7\x05\xaa\xbb\xcc\xdd\xee\xff\x00\x11\xa3nan\xcb\x7f\xf8\0\0\0\0\0\0\x07\x93\xa1a\xc0\xc2",
        b"\x85\xaa_permanent\xc3\xa7user_id*\xa4name\xa4Zo\xc3\xab\xa5roles\x91\xa5admin\xa3big\xcf\x80\0\0\0\0\0\0\0",
        b"\x80\x04\x95\x22\0\0\0\0\0\0\0}\x94(\x8c\x01x\x94]\x94K\x01a\x8c\x01y\x94h\x02\x8c\x04name\x94\x8c\x04Zo\xc3\xab\x94u.",
        b"\x80\x05}(\x8c\x01t(K\x01K\x02t\x8c\x01s\x8f(K\x03\x90\x8c\x01f(K\x04\x91\x8c\x01yN\x8c\x07user_id\x8c\x011u.",
    ];

    /// Each seed, and 3,000 values that differ from it in a few bytes.
    #[test]
    fn what_is_read_is_written_so_that_it_is_read_again() {
        let mut random = 1_u64;
        let mut next = |limit: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit
        };
        for seed in SEEDS {
            shared_session(seed);
            for _ in 0..3_000 {
                let mut input = seed.to_vec();
                for _ in 0..=next(3) {
                    let at = next(input.len());
                    match next(4) {
                        0 => drop(input.remove(at)),
                        1 => input.insert(at, next(256) as u8),
                        2 => input[at] ^= 1 << next(8),
                        _ => input[at] = seed[next(seed.len())],
                    }
                }
                shared_session(&input);
            }
        }
    }
}
