//! A CloudEvent whose attributes are headers and whose data is the body. Pure.

use std::borrow::Cow;

use http::{HeaderMap, header::CONTENT_TYPE};
use percent_encoding::percent_decode;

use super::attributes::{Attributes, Data, MAX_ATTRIBUTES, NoCloudEvent};
use crate::edge::web::media::is_text;

/// What the names of its headers begin with.
const PREFIX: &str = "ce-";

/// The event of a request that has `ce-specversion` among its headers, as its publisher would send it, published to `topic` if
/// one is given.
pub(in crate::edge::web) fn of_headers(
    headers: &HeaderMap,
    body: &[u8],
    topic: Option<&str>,
) -> Result<Vec<u8>, NoCloudEvent> {
    let mut attributes = Attributes::default();
    for (count, name) in headers.keys().filter_map(|name| name.as_str().strip_prefix(PREFIX)).enumerate() {
        if count == MAX_ATTRIBUTES {
            return Err(NoCloudEvent::at("", format!("has more than {MAX_ATTRIBUTES} attributes")));
        }
        if ["datacontenttype", "data"].contains(&name) {
            return Err(NoCloudEvent::at(name, "is no header: it is content-type, or the body"));
        }
        let mut values = headers.get_all(format!("{PREFIX}{name}")).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(NoCloudEvent::at(name, "comes twice"));
        };
        attributes.set(name, text(name, value.as_bytes())?)?;
    }
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        let text = content_type.to_str().map_err(|_| NoCloudEvent::at("datacontenttype", "is not a media type"))?;
        text.clone_into(&mut attributes.content_type);
    }
    let data = match std::str::from_utf8(body) {
        _ if body.is_empty() => Data::None,
        Ok(text) if attributes.is_text || is_text(&attributes.content_type) => Data::Text(text.to_owned()),
        _ => Data::Bytes(body.to_vec()),
    };
    attributes.event(topic, &data)
}

/// The value of a header: what is in quotes is taken out of them, then `%XX` are bytes of UTF-8.
fn text(name: &str, value: &[u8]) -> Result<String, NoCloudEvent> {
    let bare = match value {
        [b'"', inner @ .., b'"'] => Cow::Owned(unquoted(inner)),
        _ => Cow::Borrowed(value),
    };
    let decoded = percent_decode(&bare).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| NoCloudEvent::at(name, "is not UTF-8"))
}

/// What is behind a backslash is itself.
fn unquoted(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        out.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    out
}
