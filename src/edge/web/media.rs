//! What a media type says of a body, or of the payload of an event. Pure.

use http::{HeaderMap, header::CONTENT_TYPE};

/// What a request has in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Protobuf,
    CloudEvent,
    CloudEvents,
    /// The data of a CloudEvent whose attributes are headers.
    Data,
}

impl Kind {
    /// As its headers say; `None` for what no path takes, such as what forms of pages send.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(CONTENT_TYPE).iter();
        let essence = match (all.next(), all.next()) {
            (None, _) => String::new(),
            (Some(only), None) => essence(only.to_str().ok()?),
            (Some(_), Some(_)) => return None,
        };
        match &*essence {
            "application/cloudevents+json" => Some(Self::CloudEvent),
            "application/cloudevents-batch+json" => Some(Self::CloudEvents),
            // No form can set a header.
            _ if headers.contains_key("ce-specversion") => Some(Self::Data),
            "application/json" => Some(Self::Json),
            "application/x-protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// True for a payload that is JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// True for a payload that is text, if it is UTF-8.
pub(super) fn is_text(content_type: &str) -> bool {
    let essence = essence(content_type);
    let says_utf8 = content_type.split(';').skip(1).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("charset") && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    says_utf8
        || is_json(content_type)
        || essence.starts_with("text/")
        || essence == "application/xml"
        || essence.ends_with("+xml")
}

/// Without its parameters, in lower case.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_its_headers_say_and_no_form_says_so() {
        let kind = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a value"))
            });
            let mut map = HeaderMap::new();
            headers.for_each(|(name, value)| {
                map.append(name, value);
            });
            Kind::of(&map)
        };
        assert_eq!(kind(&[("content-type", "Application/JSON; charset=utf-8")]), Some(Kind::Json));
        assert_eq!(kind(&[("content-type", "application/x-protobuf")]), Some(Kind::Protobuf));
        assert_eq!(kind(&[("content-type", "application/cloudevents+json; charset=utf-8")]), Some(Kind::CloudEvent));
        assert_eq!(kind(&[("content-type", "application/cloudevents-batch+json")]), Some(Kind::CloudEvents));
        assert_eq!(kind(&[("content-type", "application/json"), ("ce-specversion", "1.0")]), Some(Kind::Data));
        assert_eq!(kind(&[("ce-specversion", "1.0")]), Some(Kind::Data));
        for form in [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "",
            "application/jsonx",
        ] {
            assert_eq!(kind(&[("content-type", form)]), None, "{form}");
        }
        assert_eq!(kind(&[("content-type", "application/json"), ("content-type", "text/plain")]), None);
        assert_eq!(kind(&[]), None);
    }

    #[test]
    fn media_types_say_what_is_json_and_what_is_text() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.a+json", "text/json"] {
            assert!(is_json(json) && is_text(json), "{json}");
        }
        for text in ["text/plain", "application/xml", "image/svg+xml", "application/x; a=b; Charset=\"UTF-8\""] {
            assert!(!is_json(text) && is_text(text), "{text}");
        }
        for bytes in ["", "application/octet-stream", "image/png", "application/jsonx", "application/x; charset=latin1"]
        {
            assert!(!is_text(bytes), "{bytes}");
        }
    }
}
