//! What a caller may do: one function that decides, over rights that were put together before. Pure.
//!
//! Nothing is allowed that no rule allows, and what a rule denies is denied whatever others allow. A filter is allowed
//! only when everything it could match is: one allowed filter contains it, and no denied one overlaps it. (Two allowed
//! filters that contain it only together do not count: that errs on the safe side.)

use crate::model::{Denial, Filter, Topic};

/// What a caller wants to do. Every entry of the hub asks in these words.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Publish an event.
    Publish(Topic<'a>),
    /// Subscribe to live topics, as a member of a group or not.
    Subscribe {
        /// At least one.
        filters: &'a [Filter],
        /// The group.
        group: Option<&'a str>,
    },
    /// Name a stream to read it, as a member of a group or not, before anything else is known.
    UseStream {
        /// Its name.
        stream: &'a str,
        /// The group.
        group: Option<&'a str>,
    },
    /// Read all that a stream has, whatever its topics.
    ReadAll {
        /// Its name.
        stream: &'a str,
        /// The group.
        group: Option<&'a str>,
    },
    /// Read a stream, as a member of a group or not.
    Read {
        /// Its name.
        stream: &'a str,
        /// What is read of it: all filters of the stream, where the caller gave none.
        filters: &'a [Filter],
        /// The group.
        group: Option<&'a str>,
    },
    /// Read an event of a stream.
    ReadEvent {
        /// The name of the stream.
        stream: &'a str,
        /// The topic of the event.
        topic: Topic<'a>,
    },
    /// See that a stream exists, and how it stands.
    SeeStream(&'a str),
    /// See that a group on a stream exists, and how it stands.
    SeeGroup {
        /// The name of the stream.
        stream: &'a str,
        /// The name of the group.
        group: &'a str,
    },
    /// Create, change, purge or delete a stream.
    ManageStream(&'a str),
    /// Have a stream take topics: what is published to them is stored there, as it is set up, and in no other stream.
    TakeTopics(&'a [Filter]),
    /// Create, change, move or delete a group on a stream.
    ManageGroup {
        /// The name of the stream.
        stream: &'a str,
        /// The name of the group.
        group: &'a str,
    },
    /// Redrive or purge the dead letters of a group.
    ManageDeadLetters {
        /// The name of the stream.
        stream: &'a str,
        /// The name of the group.
        group: &'a str,
    },
    /// List, show or terminate sessions.
    ManageSessions,
    /// Copy everything that the hub keeps.
    Backup,
}

impl Action<'_> {
    /// What is told to a caller that may not. It names nothing, so that nothing is learned from it.
    pub fn denial(&self) -> Denial {
        match self {
            Self::Publish(_) => Denial::Topic("publish to this topic"),
            Self::Subscribe { .. } => Denial::Topic("subscribe to all topics of this request"),
            // The same text for all, so that nobody learns how far it got.
            Self::UseStream { .. } | Self::ReadAll { .. } | Self::Read { .. } | Self::ReadEvent { .. } => {
                Denial::Topic("read all topics of this request")
            }
            Self::SeeStream(_) => Denial::Topic("use this stream"),
            Self::SeeGroup { .. } => Denial::Topic("use this group"),
            Self::ManageStream(_) => Verb::Streams.denial(),
            Self::TakeTopics(_) => Denial::Action(
                "add all these topics to a stream: besides `streams:NAME` that needs `topics:FILTER` in `manage`",
            ),
            Self::ManageGroup { .. } => Verb::Groups.denial(),
            Self::ManageDeadLetters { .. } => Verb::DeadLetters.denial(),
            Self::ManageSessions => Verb::Sessions.denial(),
            Self::Backup => Verb::Backup.denial(),
        }
    }

    /// What is told to the log.
    pub fn told(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let list = |filters: &[Filter]| filters.iter().map(Filter::as_str).collect::<Vec<_>>().join(" ");
        let member = |group: Option<&str>| group.map(|group| format!(" in group {group}")).unwrap_or_default();
        match self {
            Self::Publish(topic) => format!("publish to {}", text(topic.as_bytes())),
            Self::Subscribe { filters, group } => format!("subscribe to {}{}", list(filters), member(*group)),
            Self::Read { stream, filters, group } => {
                format!("read {} of stream {stream}{}", list(filters), member(*group))
            }
            Self::UseStream { stream, group } => format!("use stream {stream}{}", member(*group)),
            Self::ReadAll { stream, group } => format!("read all of stream {stream}{}", member(*group)),
            Self::ReadEvent { stream, topic } => format!("read {} of stream {stream}", text(topic.as_bytes())),
            Self::SeeStream(stream) => format!("see stream {stream}"),
            Self::SeeGroup { stream, group } => format!("see group {stream}/{group}"),
            Self::TakeTopics(filters) => format!("add topics to a stream: {}", list(filters)),
            Self::ManageStream(_)
            | Self::ManageGroup { .. }
            | Self::ManageDeadLetters { .. }
            | Self::ManageSessions
            | Self::Backup => {
                let verb = self.managing().map_or("", Verb::name);
                format!("manage {verb} {}", self.target()).trim_end().to_owned()
            }
        }
    }

    /// What is managed; empty for what is no management.
    pub fn target(&self) -> String {
        match self {
            Self::ManageStream(stream) => (*stream).to_owned(),
            Self::ManageGroup { stream, group } | Self::ManageDeadLetters { stream, group } => {
                format!("{stream}/{group}")
            }
            _ => String::new(),
        }
    }

    /// The verb of management; `None` for what is none.
    pub fn managing(&self) -> Option<Verb> {
        match self {
            Self::ManageStream(_) => Some(Verb::Streams),
            Self::ManageGroup { .. } => Some(Verb::Groups),
            Self::ManageDeadLetters { .. } => Some(Verb::DeadLetters),
            Self::ManageSessions => Some(Verb::Sessions),
            Self::Backup => Some(Verb::Backup),
            _ => None,
        }
    }
}

/// What can be managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Streams.
    Streams,
    /// Groups on streams.
    Groups,
    /// What groups gave up.
    DeadLetters,
    /// Sessions.
    Sessions,
    /// Copies of everything that the hub keeps.
    Backup,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Streams, Self::Groups, Self::DeadLetters, Self::Sessions, Self::Backup];

    /// As policies have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Groups => "groups",
            Self::DeadLetters => "dead_letters",
            Self::Sessions => "sessions",
            Self::Backup => "backup",
        }
    }

    /// What is told to a caller that may not.
    pub fn denial(self) -> Denial {
        Denial::Action(match self {
            Self::Streams => "manage this stream",
            Self::Groups => "manage this group",
            Self::DeadLetters => "manage these dead letters",
            Self::Sessions => "manage sessions",
            Self::Backup => "make backups",
        })
    }
}

/// A pattern over names: `*` is any run of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// True when the pattern takes the name that these parts make, one behind the other.
    pub fn matches(&self, parts: &[&str]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut star) = (0, None);
        let name: Vec<u8> = parts.iter().flat_map(|part| part.bytes()).collect();
        let mut next = 0;
        while next < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, next));
                    at += 1;
                }
                Some(byte) if *byte == name[next] => (at, next) = (at + 1, next + 1),
                // The last `*` takes one more.
                _ => match &mut star {
                    None => return false,
                    Some((from, taken)) => {
                        *taken += 1;
                        (at, next) = (*from + 1, *taken);
                    }
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// Rules over topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topics {
    /// What is allowed.
    pub allow: Vec<Filter>,
    /// What is denied all the same.
    pub deny: Vec<Filter>,
}

impl Topics {
    fn allow(&self, topic: Topic<'_>) -> bool {
        self.allow.iter().any(|filter| filter.matches(topic)) && !self.deny.iter().any(|filter| filter.matches(topic))
    }

    fn allow_all_of(&self, filter: &Filter) -> bool {
        self.allow.iter().any(|allowed| allowed.contains(filter))
            && !self.deny.iter().any(|denied| denied.overlaps(filter))
    }

    fn allow_everything(&self) -> bool {
        self.deny.is_empty() && self.allow.iter().any(|filter| filter.as_str() == ">")
    }
}

/// Rules over names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// What is allowed.
    pub allow: Vec<Pattern>,
    /// What is denied all the same.
    pub deny: Vec<Pattern>,
}

impl Names {
    fn allow(&self, parts: &[&str]) -> bool {
        self.allow.iter().any(|pattern| pattern.matches(parts))
            && !self.deny.iter().any(|pattern| pattern.matches(parts))
    }

    /// A group on a stream is `STREAM/GROUP`, one on live topics `/GROUP`.
    fn allow_group(&self, stream: &str, group: &str) -> bool {
        self.allow(&[stream, "/", group])
    }
}

/// Everything that a caller may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// Which topics it may publish to.
    pub publish: Topics,
    /// Which topics it may read, live or from streams.
    pub subscribe: Topics,
    /// Which streams it may read.
    pub streams: Names,
    /// Which groups it may be a member of, and see.
    pub groups: Names,
    /// Which topics the streams that it manages may take.
    pub take: Topics,
    /// What it may manage, by [`Verb`].
    pub manage: [Names; Verb::ALL.len()],
}

impl Rights {
    /// The one function that decides.
    pub fn allow(&self, action: &Action<'_>) -> bool {
        match *action {
            Action::Publish(topic) => self.publish.allow(topic),
            Action::Subscribe { filters, group } => {
                self.allow_filters(filters) && group.is_none_or(|group| self.groups.allow_group("", group))
            }
            Action::UseStream { stream, group } => self.allow_stream(stream, group),
            Action::ReadAll { stream, group } => self.allow_stream(stream, group) && self.allow_every_topic(),
            Action::Read { stream, filters, group } => self.allow_stream(stream, group) && self.allow_filters(filters),
            Action::ReadEvent { stream, topic } => self.streams.allow(&[stream]) && self.subscribe.allow(topic),
            Action::SeeStream(stream) => self.streams.allow(&[stream]) || self.manage(Verb::Streams).allow(&[stream]),
            Action::SeeGroup { stream, group } => {
                self.groups.allow_group(stream, group) || self.manage(Verb::Groups).allow_group(stream, group)
            }
            Action::ManageStream(stream) => self.manage(Verb::Streams).allow(&[stream]),
            Action::TakeTopics(filters) => filters.iter().all(|filter| self.take.allow_all_of(filter)),
            Action::ManageGroup { stream, group } => self.manage(Verb::Groups).allow_group(stream, group),
            Action::ManageDeadLetters { stream, group } => self.manage(Verb::DeadLetters).allow_group(stream, group),
            Action::ManageSessions => self.manage(Verb::Sessions).allow(&[]),
            Action::Backup => self.manage(Verb::Backup).allow(&[]),
        }
    }

    /// True for who may read every topic.
    pub fn allow_every_topic(&self) -> bool {
        self.subscribe.allow_everything()
    }

    /// True for who may publish to every topic.
    pub fn allow_every_publish(&self) -> bool {
        self.publish.allow_everything()
    }

    /// True for who may manage something of that kind.
    pub fn allow_some(&self, verb: Verb) -> bool {
        !self.manage(verb).allow.is_empty()
    }

    fn allow_stream(&self, stream: &str, group: Option<&str>) -> bool {
        self.streams.allow(&[stream]) && group.is_none_or(|group| self.groups.allow_group(stream, group))
    }

    fn allow_filters(&self, filters: &[Filter]) -> bool {
        !filters.is_empty() && filters.iter().all(|filter| self.subscribe.allow_all_of(filter))
    }

    fn manage(&self, verb: Verb) -> &Names {
        &self.manage[verb as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filters(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| Filter::parse(text.as_bytes()).expect("a filter")).collect()
    }

    fn names(allow: &[&str], deny: &[&str]) -> Names {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
        Names { allow: patterns(allow), deny: patterns(deny) }
    }

    fn rights() -> Rights {
        let topics = Topics { allow: filters(&["orders.>", "a.*"]), deny: filters(&["orders.*.secret"]) };
        Rights {
            publish: topics.clone(),
            subscribe: topics.clone(),
            take: topics,
            streams: names(&["orders*"], &["orders-old"]),
            groups: names(&["orders/work*", "/live"], &["*/workless"]),
            manage: [
                names(&["orders"], &[]),
                names(&["orders/*"], &[]),
                Names::default(),
                names(&["*"], &[]),
                Names::default(),
            ],
        }
    }

    fn subscribe(texts: &[&str]) -> bool {
        rights().allow(&Action::Subscribe { filters: &filters(texts), group: None })
    }

    #[test]
    fn nothing_is_allowed_that_no_rule_allows() {
        let none = Rights::default();
        let topic = Topic::parse(b"a").expect("a topic");
        let all = filters(&[">"]);
        for action in [
            Action::Publish(topic),
            Action::Subscribe { filters: &all, group: None },
            Action::UseStream { stream: "s", group: None },
            Action::ReadAll { stream: "s", group: None },
            Action::Read { stream: "s", filters: &all, group: None },
            Action::ReadEvent { stream: "s", topic },
            Action::SeeStream("s"),
            Action::SeeGroup { stream: "s", group: "g" },
            Action::ManageStream("s"),
            Action::TakeTopics(&all),
            Action::ManageGroup { stream: "s", group: "g" },
            Action::ManageDeadLetters { stream: "s", group: "g" },
            Action::ManageSessions,
        ] {
            assert!(!none.allow(&action), "{action:?}");
        }
    }

    #[test]
    fn a_filter_is_allowed_only_when_everything_it_could_match_is() {
        assert!(subscribe(&["a.*"]) && subscribe(&["a.b", "a.c"]));
        assert!(!subscribe(&["a.>"]) && !subscribe(&["*"]) && !subscribe(&[">"]));
        // One that is not allowed spoils the others.
        assert!(!subscribe(&["a.b", "b"]));
        // Deny wins, also over a part of what is asked for.
        assert!(!subscribe(&["orders.>"]) && !subscribe(&["orders.eu.*"]) && !subscribe(&["orders.eu.secret"]));
        assert!(subscribe(&["orders.eu.created"]) && subscribe(&["orders.eu.created.>"]));
        assert!(!subscribe(&[]));
    }

    #[test]
    fn a_publish_is_judged_by_its_topic() {
        let publish = |topic: &str| rights().allow(&Action::Publish(Topic::parse(topic.as_bytes()).expect("a topic")));
        assert!(publish("orders.eu.created") && publish("a.b"));
        assert!(!publish("orders.eu.secret") && !publish("orders") && !publish("b"));
    }

    #[test]
    fn a_stream_is_read_with_the_right_to_it_and_to_its_topics() {
        let (own, all) = (filters(&["a.b"]), filters(&[">"]));
        let read = |stream, filters, group| rights().allow(&Action::Read { stream, filters, group });
        assert!(read("orders", &own, None) && read("orders-new", &own, None));
        assert!(!read("orders-old", &own, None) && !read("other", &own, None));
        assert!(!read("orders", &all, None) && !read("orders", &[], None));
        assert!(read("orders", &own, Some("workers")) && !read("orders", &own, Some("others")));
        assert!(!read("orders", &own, Some("workless")) && !read("orders-new", &own, Some("workers")));
        let named = |stream, group| rights().allow(&Action::UseStream { stream, group });
        assert!(named("orders", None) && named("orders", Some("work")));
        assert!(!named("orders", Some("x")) && !named("x", None));
        assert!(!rights().allow(&Action::ReadAll { stream: "orders", group: None }));
        let live = |group| rights().allow(&Action::Subscribe { filters: &own, group: Some(group) });
        assert!(live("live") && !live("workers"));
    }

    #[test]
    fn management_is_allowed_by_verb_and_name() {
        let rights = rights();
        assert!(rights.allow(&Action::ManageStream("orders")) && !rights.allow(&Action::ManageStream("orders2")));
        assert!(rights.allow(&Action::ManageGroup { stream: "orders", group: "any" }));
        assert!(!rights.allow(&Action::ManageDeadLetters { stream: "orders", group: "any" }));
        assert!(rights.allow(&Action::ManageSessions));
        // Who may manage a stream may see it, though not read it.
        assert!(rights.allow(&Action::SeeStream("orders")));
        assert!(rights.allow(&Action::SeeGroup { stream: "orders", group: "any" }));
    }

    #[test]
    fn a_stream_takes_only_topics_that_are_wholly_its_managers() {
        let take = |texts: &[&str]| rights().allow(&Action::TakeTopics(&filters(texts)));
        assert!(take(&["a.*"]) && take(&["a.b", "orders.eu.created"]));
        assert!(!take(&["a.b", "b"]) && !take(&["orders.>"]) && !take(&["orders.eu.secret"]) && !take(&[">"]));
    }

    #[test]
    fn patterns_take_any_run_of_characters() {
        let takes = |pattern: &str, name: &str| Pattern::new(pattern).matches(&[name]);
        assert!(takes("*", "") && takes("*", "abc") && takes("a*c", "abbc") && takes("a*b*c", "aXbYbc"));
        assert!(takes("abc", "abc") && takes("", "") && takes("a**", "a"));
        assert!(!takes("abc", "abcd") && !takes("a*c", "abd") && !takes("", "a") && !takes("a", ""));
        assert!(Pattern::new("a/*").matches(&["a", "/", "b"]));
    }

    proptest! {
        #[test]
        fn an_allowed_filter_matches_only_allowed_topics(
            allow in prop::collection::vec("[ab*](\\.[ab*]){0,2}(\\.>)?|>", 0..4),
            deny in prop::collection::vec("[ab*](\\.[ab*]){0,2}(\\.>)?", 0..2),
            asked in "[ab*](\\.[ab*]){0,2}(\\.>)?|>",
            topic in "[abc](\\.[abc]){0,4}",
        ) {
            let parse = |texts: &[String]| texts.iter().map(|t| Filter::parse(t.as_bytes()).expect("a filter")).collect();
            let rules = Topics { allow: parse(&allow), deny: parse(&deny) };
            let asked = Filter::parse(asked.as_bytes()).expect("a filter");
            let topic = Topic::parse(topic.as_bytes()).expect("a topic");
            prop_assert!(!rules.allow_all_of(&asked) || !asked.matches(topic) || rules.allow(topic));
            // What is denied is denied, and what nothing allows is not allowed.
            let denied = rules.deny.iter().any(|filter| filter.matches(topic));
            let allowed = rules.allow.iter().any(|filter| filter.matches(topic));
            prop_assert_eq!(rules.allow(topic), allowed && !denied);
        }

        #[test]
        fn patterns_agree_with_a_plain_search(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|from| plain(rest, &name[from..])),
                    Some((byte, rest)) => name.first() == Some(byte) && plain(rest, &name[1..]),
                }
            }
            prop_assert_eq!(Pattern::new(&pattern).matches(&[&name]), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
