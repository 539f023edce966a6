//! The policy file: roles, who has them, and what they allow and deny. Pure.
//!
//! A role belongs to a principal when one of the role's identities matches it, or when a value of its roles claim is the
//! name of the role or one of the role's `claims`. The rights of a principal are those of all its roles together.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    acl::{Names, Pattern, Rights, Topics, Verb},
    certificate::{DNS, SPIFFE},
    principal::{Principal, Source},
};
use crate::model::Filter;

/// The most roles in one policy.
const MAX_ROLES: usize = 10_000;
/// What stands under `manage` for the topics that streams may take.
const TOPICS: &str = "topics";

/// Every role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    roles: Vec<Role>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    name: Box<str>,
    identities: Vec<Pattern>,
    claims: Vec<Box<str>>,
    rights: Rights,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    #[serde(default)]
    roles: BTreeMap<String, WrittenRole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRole {
    identities: Vec<String>,
    claims: Vec<String>,
    allow: WrittenRules,
    deny: WrittenRules,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRules {
    publish: Vec<String>,
    subscribe: Vec<String>,
    streams: Vec<String>,
    groups: Vec<String>,
    manage: Vec<String>,
}

impl Policy {
    /// Reads the text of a policy file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: WrittenPolicy = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if written.roles.len() > MAX_ROLES {
            return Err(format!("there are {} roles; the limit is {MAX_ROLES}", written.roles.len()));
        }
        let roles = written.roles.into_iter().map(|(name, role)| Role::parse(&name, &role));
        Ok(Self { roles: roles.collect::<Result<_, _>>()? })
    }

    /// Which roles a principal has, by their places. `given` are the names of roles it has by other means than claims.
    pub fn roles_of(&self, principal: &Principal, given: &[Box<str>]) -> Vec<usize> {
        let has = |(place, role): (usize, &Role)| role.belongs_to(principal, given).then_some(place);
        self.roles.iter().enumerate().filter_map(has).collect()
    }

    /// The names of roles.
    pub fn names(&self, roles: &[usize]) -> Vec<Box<str>> {
        roles.iter().filter_map(|place| Some(self.roles.get(*place)?.name.clone())).collect()
    }

    /// What roles allow and deny together.
    pub fn rights(&self, roles: &[usize]) -> Rights {
        let mut all = Rights::default();
        for rights in roles.iter().filter_map(|place| self.roles.get(*place)).map(|role| &role.rights) {
            all.add(rights);
        }
        all.tidy();
        all
    }
}

impl Role {
    fn parse(name: &str, written: &WrittenRole) -> Result<Self, String> {
        let below = |error: String| format!("roles.{name}.{error}");
        let (allow, deny) = (&written.allow, &written.deny);
        let topics = |what: &str, allow: &[String], deny: &[String]| {
            let parse = |which: &str, texts: &[String]| -> Result<Vec<Filter>, String> {
                let parsed = texts.iter().map(|text| {
                    Filter::parse(text.as_bytes()).map_err(|error| format!("{which}.{what}: {text:?}: {error}"))
                });
                parsed.collect()
            };
            Ok::<_, String>(Topics { allow: parse("allow", allow)?, deny: parse("deny", deny)? })
        };
        let names = |allow: &[String], deny: &[String]| Names { allow: patterns(allow), deny: patterns(deny) };
        let (take, manage) = managed(&allow.manage, &deny.manage).map_err(&below)?;
        for identity in &written.identities {
            check_identity(identity).map_err(&below)?;
        }
        for group in allow.groups.iter().chain(&deny.groups).filter(|group| *group != "*") {
            if group.split('/').count() != 2 {
                return Err(below(format!(
                    "groups: {group:?} is not STREAM/GROUP, /GROUP for one on live topics, or *"
                )));
            }
        }
        let rights = Rights {
            publish: topics("publish", &allow.publish, &deny.publish).map_err(&below)?,
            subscribe: topics("subscribe", &allow.subscribe, &deny.subscribe).map_err(&below)?,
            streams: names(&allow.streams, &deny.streams),
            groups: names(&allow.groups, &deny.groups),
            take,
            manage,
        };
        Ok(Self {
            name: name.into(),
            identities: patterns(&written.identities),
            claims: written.claims.iter().map(|claim| claim.as_str().into()).collect(),
            rights,
        })
    }

    fn belongs_to(&self, principal: &Principal, given: &[Box<str>]) -> bool {
        let prefix = principal.source().prefix();
        let by_claim = |claim: &str| *claim == *self.name || self.claims.iter().any(|known| **known == *claim);
        principal.claims().iter().any(|claim| by_claim(claim))
            || given.contains(&self.name)
            || self.identities.iter().any(|pattern| pattern.matches(&[prefix, ":", principal.name()]))
    }
}

impl Rights {
    fn add(&mut self, other: &Self) {
        let ours = [&mut self.publish, &mut self.subscribe, &mut self.take];
        for (topics, more) in ours.into_iter().zip([&other.publish, &other.subscribe, &other.take]) {
            topics.allow.extend_from_slice(&more.allow);
            topics.deny.extend_from_slice(&more.deny);
        }
        let ours = [&mut self.streams, &mut self.groups].into_iter().chain(&mut self.manage);
        for (names, more) in ours.zip([&other.streams, &other.groups].into_iter().chain(&other.manage)) {
            names.allow.extend_from_slice(&more.allow);
            names.deny.extend_from_slice(&more.deny);
        }
    }

    /// Forgets what is said twice.
    fn tidy(&mut self) {
        for topics in [&mut self.publish, &mut self.subscribe, &mut self.take] {
            for filters in [&mut topics.allow, &mut topics.deny] {
                filters.sort();
                filters.dedup();
            }
        }
        for names in [&mut self.streams, &mut self.groups].into_iter().chain(&mut self.manage) {
            for patterns in [&mut names.allow, &mut names.deny] {
                patterns.sort();
                patterns.dedup();
            }
        }
    }
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

/// What may be managed, and which topics streams may take for it.
fn managed(allow: &[String], deny: &[String]) -> Result<(Topics, [Names; Verb::ALL.len()]), String> {
    let (mut take, mut manage) = (Topics::default(), <[Names; Verb::ALL.len()]>::default());
    for (which, texts) in [("allow", allow), ("deny", deny)] {
        let below = |error: String| format!("{which}.manage: {error}");
        let filters = if which == "allow" { &mut take.allow } else { &mut take.deny };
        let mut push = |text: &str, filter: &str| -> Result<(), String> {
            filters.push(Filter::parse(filter.as_bytes()).map_err(|error| below(format!("{text:?}: {error}")))?);
            Ok(())
        };
        for text in texts {
            if let Some(filter) = topics(text) {
                push(text, filter)?;
                continue;
            }
            // Who manages all streams manages what they are for, too.
            if which == "allow" && text == Verb::Streams.name() {
                push(text, ">")?;
            }
            let (verb, pattern) = verb(text).map_err(&below)?;
            let rules = &mut manage[verb as usize];
            if which == "allow" { &mut rules.allow } else { &mut rules.deny }.push(pattern);
        }
    }
    Ok((take, manage))
}

/// The filter of `topics:FILTER`; `topics` is all of them.
fn topics(text: &str) -> Option<&str> {
    if text == TOPICS { Some(">") } else { text.strip_prefix(TOPICS)?.strip_prefix(':') }
}

/// `streams`, or `streams:NAME` for those that the pattern takes.
fn verb(text: &str) -> Result<(Verb, Pattern), String> {
    let (name, pattern) = text.split_once(':').map_or((text, None), |(name, pattern)| (name, Some(pattern)));
    let known = || format!("{}, {TOPICS}", Verb::ALL.map(Verb::name).join(", "));
    let verb = Verb::ALL
        .into_iter()
        .find(|verb| verb.name() == name)
        .ok_or_else(|| format!("{name:?} cannot be managed, only {}", known()))?;
    match (verb, pattern) {
        (_, None) => Ok((verb, Pattern::new("*"))),
        (Verb::Sessions, Some(_)) => Err(format!("{text:?}: sessions have no names")),
        (Verb::Backup, Some(_)) => Err(format!("{text:?}: a backup always has everything")),
        (Verb::Groups | Verb::DeadLetters, Some(pattern)) if pattern.split('/').count() != 2 => {
            Err(format!("{text:?}: a group on a stream is STREAM/GROUP"))
        }
        (_, Some(pattern)) => Ok((verb, Pattern::new(pattern))),
    }
}

/// An identity says which source it is of, and one from a certificate of which kind it is: the same name of another is
/// somebody else.
fn check_identity(text: &str) -> Result<(), String> {
    let sources = [Source::Jwt, Source::Certificate, Source::Token].map(Source::prefix);
    let problem = match text.split_once(':') {
        _ if text == "*" => return Ok(()),
        Some((source, name)) if source == Source::Certificate.prefix() => {
            let (head, open) = name.split_once('*').map_or((name, false), |(head, _)| (head, true));
            let of = |kind: &str| head.starts_with(kind) || (open && kind.starts_with(head));
            if of(SPIFFE) || of(DNS) {
                return Ok(());
            }
            "is not mtls:spiffe://... or mtls:dns:NAME"
        }
        Some((source, _)) if sources.contains(&source) => return Ok(()),
        _ => "is not jwt:NAME, mtls:spiffe://..., mtls:dns:NAME, token:NAME or *",
    };
    Err(format!("identities: {text:?} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::acl::Action, model::Topic};

    const POLICY: &str = r#"
        [roles.writer]
        identities = ["mtls:spiffe://prod/ns/shop/*", "jwt:alice"]
        claims = ["shop-writers"]
        allow.publish = ["orders.>"]
        deny.publish = ["orders.secret"]

        [roles.auditor.allow]
        subscribe = [">"]
        streams = ["*"]
        manage = ["sessions", "backup", "streams:audit-*"]

        [roles.everyone]
        identities = ["*"]
        allow.publish = ["orders.secret", "hello"]
    "#;

    fn principal(source: Source, name: &str, claims: &[&str]) -> Principal {
        let claims = claims.iter().map(|claim| (*claim).into()).collect();
        Principal::new(source, name, claims, None).expect("a principal")
    }

    fn rights(principal: &Principal, given: &[Box<str>]) -> Rights {
        let policy = Policy::parse(POLICY).expect("a policy");
        policy.rights(&policy.roles_of(principal, given))
    }

    fn may_publish(rights: &Rights, topic: &str) -> bool {
        rights.allow(&Action::Publish(Topic::parse(topic.as_bytes()).expect("a topic")))
    }

    #[test]
    fn roles_come_from_identities_claims_and_static_tokens() {
        let by_identity = principal(Source::Certificate, "spiffe://prod/ns/shop/sa/checkout", &[]);
        let by_claim = principal(Source::Jwt, "bob", &["shop-writers"]);
        let by_name_of_role = principal(Source::Jwt, "bob", &["writer"]);
        for principal in [by_identity, by_claim, by_name_of_role, principal(Source::Jwt, "alice", &[])] {
            assert!(may_publish(&rights(&principal, &[]), "orders.eu"), "{principal}");
        }
        let dev = principal(Source::Token, "dev", &[]);
        assert!(may_publish(&rights(&dev, &["writer".into()]), "orders.eu"));
        for other in [
            dev,
            principal(Source::Jwt, "bob", &["Writer", "shop"]),
            // The same name from another source is somebody else.
            principal(Source::Token, "alice", &[]),
            principal(Source::Jwt, "spiffe://prod/ns/shop/sa/checkout", &[]),
        ] {
            assert!(!may_publish(&rights(&other, &[]), "orders.eu"), "{other}");
            assert!(may_publish(&rights(&other, &[]), "hello"), "{other}");
        }
    }

    #[test]
    fn what_one_role_denies_no_other_allows() {
        let alice = rights(&principal(Source::Jwt, "alice", &[]), &[]);
        assert!(!may_publish(&alice, "orders.secret"));
        assert!(may_publish(&rights(&principal(Source::Jwt, "bob", &[]), &[]), "orders.secret"));
        assert!(!may_publish(&rights(&principal(Source::Jwt, "bob", &["writer"]), &[]), "orders.secret"));
    }

    #[test]
    fn management_may_be_limited_to_names() {
        let auditor = rights(&principal(Source::Jwt, "a", &["auditor"]), &[]);
        assert!(auditor.allow(&Action::ManageSessions) && auditor.allow(&Action::ManageStream("audit-1")));
        assert!(!auditor.allow(&Action::ManageStream("orders")));
        assert!(
            auditor.allow(&Action::Backup) && !rights(&principal(Source::Jwt, "b", &[]), &[]).allow(&Action::Backup)
        );
    }

    #[test]
    fn who_manages_some_streams_needs_a_right_to_the_topics_they_take() {
        let may = |manage: &str, filter: &str| {
            let policy = Policy::parse(&format!("[roles.a]\n{manage}")).expect("a policy");
            let rights = policy.rights(&policy.roles_of(&principal(Source::Jwt, "x", &["a"]), &[]));
            rights.allow(&Action::TakeTopics(&[Filter::parse(filter.as_bytes()).expect("a filter")]))
        };
        assert!(may("allow.manage = ['streams']", ">"), "all streams");
        assert!(!may("allow.manage = ['streams:*']", "a"), "whatever their names");
        let some = "allow.manage = ['streams:mine*', 'topics:mine.>']";
        assert!(may(some, "mine.>") && !may(some, "other") && !may(some, ">"));
        assert!(may("allow.manage = ['streams:mine*', 'topics']", ">"));
        let but = "allow.manage = ['streams']\ndeny.manage = ['topics:secret.>']";
        assert!(may(but, "open") && !may(but, ">") && !may(but, "secret.a"));
        assert!(!may("allow.manage = ['topics']\ndeny.manage = ['topics']", "a"));
    }

    fn check_refused(text: &str, told: &str) {
        let error = Policy::parse(text).expect_err("refused");
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn faults_name_the_role_and_the_key() {
        check_refused("[role.a]", "role");
        check_refused("[roles.a]\nalow.publish = ['a']", "alow");
        check_refused("[roles.a.allow]\npublishes = ['a']", "publishes");
        check_refused("[roles.a.allow]\npublish = ['a..b']", "roles.a.allow.publish: \"a..b\"");
        check_refused("[roles.a.deny]\nsubscribe = ['>.a']", "roles.a.deny.subscribe");
        check_refused("[roles.a.allow]\nmanage = ['everything']", "roles.a.allow.manage: \"everything\"");
        check_refused("[roles.a.allow]\nmanage = ['sessions:x']", "sessions have no names");
        check_refused("[roles.a.allow]\nmanage = ['backup:x']", "always has everything");
        check_refused("[roles.a.allow]\nmanage = ['groups:x']", "STREAM/GROUP");
        check_refused("[roles.a.deny]\nmanage = ['topics:a..b']", "roles.a.deny.manage: \"topics:a..b\"");
        check_refused("[roles.a.allow]\nmanage = ['topicsx']", "topics");
        check_refused("[roles.a.allow]\ngroups = ['x']", "STREAM/GROUP");
        check_refused("[roles.a]\nidentities = ['alice']", "jwt:NAME");
        check_refused("[roles.a]\nidentities = 'jwt:a'", "identities");
        check_refused("[roles.a]\nidentities = ['mtls:shop.internal']", "mtls:dns:NAME");
        check_refused("[roles.a]\nidentities = ['mtls:shop*']", "mtls:dns:NAME");
        for good in ["mtls:*", "mtls:s*", "mtls:spiffe://*", "mtls:dns:*.internal", "mtls:dns:shop.internal", "*"] {
            assert!(Policy::parse(&format!("[roles.a]\nidentities = ['{good}']")).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_number_of_roles_is_limited() {
        let roles = |count: usize| (0..count).map(|n| format!("[roles.r{n}]\n")).collect::<Vec<_>>().concat();
        assert!(Policy::parse(&roles(MAX_ROLES)).is_ok());
        check_refused(&roles(MAX_ROLES + 1), "the limit is 10000");
    }
}
