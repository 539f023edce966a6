//! Texts that are made to cost: whatever is sent, what is kept and what is done before others can work is bounded.

use super::{
    super::{Decoding, JsonError},
    of,
};

const FRAME: usize = 4 * 1024 * 1024;

/// Something over and over, up to the size of a frame.
fn filled(before: &str, over: &str, after: &str) -> String {
    let times = (FRAME - before.len() - after.len()) / over.len();
    let all = format!("{before}{}", over.repeat(times));
    format!("{}{after}", all.trim_end_matches(','))
}

/// Reads a text, and returns how many parts that took and the most steps of one.
fn read(json: String) -> (Result<Vec<u8>, JsonError>, usize, usize) {
    let mut decoding: Decoding = of("SessionRequest").decoding(json.into());
    let (mut parts, mut most) = (0, 0);
    while !decoding.is_whole() {
        match decoding.some() {
            Ok(steps) => (parts, most) = (parts + 1, most.max(steps)),
            Err(error) => return (Err(error), parts, most),
        }
    }
    (Ok(decoding.into_bytes()), parts, most)
}

#[test]
fn nesting_ends_where_the_contract_ends() {
    for (before, over, path) in [
        ("", "[", ""),
        ("", "{\"publish\":", "publish.publish"),
        ("{\"publish\":{\"events\":", "[", "publish.events[0]"),
        ("{\"requestId\":", "[", "request_id"),
        ("{\"hello\":{\"labels\":{\"a\":", "[", "hello.labels[a]"),
    ] {
        let (error, parts, _) = read(filled(before, over, ""));
        assert_eq!((error.expect_err("refused").path.as_str(), parts), (path, 0), "{before}{over}");
    }
}

#[test]
fn large_texts_are_read_in_parts_and_become_no_larger() {
    let labels: Vec<_> = (0..400_000).map(|n| format!("\"{n}\":\"\"")).collect();
    for (what, json) in [
        ("empty events", filled("{\"publish\":{\"events\":[", "{},", "]}}")),
        ("small numbers", filled("{\"acknowledge\":{\"sequences\":[", "0,", "]}}")),
        ("numbers as texts", filled("{\"acknowledge\":{\"sequences\":[", "\"1\",", "]}}")),
        ("empty filters", filled("{\"update\":{\"filters\":[", "\"\",", "]}}")),
        ("labels", format!("{{\"hello\":{{\"labels\":{{{}}}}}}}", labels.join(","))),
        ("one text", filled("{\"ping\":{\"nonce\":\"", "h\u{e9}", "\"}}")),
        ("escapes", filled("{\"ping\":{\"nonce\":\"", "\\n", "\"}}")),
        ("pairs", filled("{\"ping\":{\"nonce\":\"", "\\ud834\\udd1e", "\"}}")),
        ("base64", filled("{\"publish\":{\"events\":[{\"data\":\"", "QUJD", "\"}]}}")),
        ("blanks", filled("{\"ping\":", " ", "{}}")),
        ("blanks at the end", filled("{}", "\n", "")),
    ] {
        let len = json.len();
        let (read, parts, most) = read(json);
        let read = read.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(read.len() <= len && read.capacity() <= len, "{what}: {} bytes", read.len());
        // The end of what is inside of something else may move all of it, once.
        assert!(parts > 50 && most < 2000 + FRAME / 512, "{what}: {parts} parts, {most} steps in one");
    }
}

#[test]
fn what_would_be_larger_in_protobuf_is_limited() {
    let negative = |times: usize| format!("{{\"acknowledge\":{{\"sequences\":[{}0]}}}}", "-1,".repeat(times));
    let most = 64 * 1024 / 7 - 3;
    assert!(read(negative(most)).0.is_ok());
    let error = read(negative(FRAME / 4)).0.expect_err("refused");
    assert_eq!(error.problem, "is one of too many negative numbers");
    assert!(error.path.starts_with("acknowledge.sequences["), "{error}");
}

#[test]
fn what_has_no_end_is_refused_at_the_end() {
    for (before, over) in [
        ("{\"", "x"),
        ("{\"ping\":{\"nonce\":\"", "x"),
        ("{\"requestId\":", "9"),
        ("{\"requestId\":\"", "9"),
        ("{\"requestId\":1e", "9"),
        ("{\"publish\":{\"events\":[", "{},"),
        ("", " "),
    ] {
        let (error, _, most) = read(filled(before, over, ""));
        error.expect_err("refused");
        assert!(most < 2000, "{before}: {most} steps");
    }
}
