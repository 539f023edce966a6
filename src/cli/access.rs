//! `switchyard whoami` and `switchyard check`: as whom a hub knows the caller, and what it lets that caller do.

use anyhow::ensure;
use serde_json::json;

use super::{named::Named, reach::Reach, show};
use crate::proto::v1::{AccessAction, CheckRequest, CheckResponse, WhoAmIRequest, WhoAmIResponse};

/// What stands before the name of every reason in the contract, and before none in errors.
const REASON_PREFIX: &str = "END_REASON_";

/// Show as whom a hub knows the caller: principal, roles, and when the credential expires
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard whoami
  switchyard whoami --token-file alice.token --json")]
pub struct WhoAmI {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Check whether the caller may do something, without doing it; exit code 0 if it may
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard check publish orders.eu.created
  switchyard check read orders --group billing --token-file alice.token
  switchyard check manage-stream orders --json

Each subcommand has its own examples: switchyard check publish --help")]
pub struct Check {
    /// What the caller may or may not do
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Publish to a topic
    #[command(after_help = "Examples:\n  switchyard check publish orders.eu.created")]
    Publish {
        /// Which topic
        topic: String,
    },
    /// Subscribe to live events
    #[command(after_help = "Examples:\n  switchyard check subscribe 'orders.>'\n  \
        switchyard check subscribe jobs --group workers")]
    Subscribe {
        /// To which topics: * is one token, a final > one or more
        #[arg(required = true, value_name = "FILTER")]
        filters: Vec<String>,
        /// As a member of this group
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        group: String,
    },
    /// Read from a stream
    #[command(after_help = "Examples:\n  switchyard check read orders\n  \
        switchyard check read orders 'orders.eu.*' --group billing")]
    Read {
        /// Which stream
        stream: String,
        /// Which topics [default: all that the stream takes]
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
        /// As a member of this group
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        group: String,
    },
    /// See a stream and its state
    #[command(after_help = "Examples:\n  switchyard check see-stream orders")]
    SeeStream {
        /// Which stream
        stream: String,
    },
    /// See a group and its state
    #[command(after_help = "Examples:\n  switchyard check see-group orders billing")]
    SeeGroup(Named),
    /// Create, change, purge and delete a stream
    #[command(after_help = "Examples:\n  switchyard check manage-stream orders")]
    ManageStream {
        /// Which stream
        stream: String,
    },
    /// Have streams take topics
    #[command(after_help = "Examples:\n  switchyard check add-topics 'orders.>'")]
    AddTopics {
        /// Which topics: * is one token, a final > one or more
        #[arg(required = true, value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Create, change, move and delete a group
    #[command(after_help = "Examples:\n  switchyard check manage-group orders billing")]
    ManageGroup(Named),
    /// Redrive and purge the dead letters of a group
    #[command(after_help = "Examples:\n  switchyard check manage-dead-letters orders billing")]
    ManageDeadLetters(Named),
    /// Show and terminate sessions
    #[command(after_help = "Examples:\n  switchyard check manage-sessions")]
    ManageSessions,
    /// Back up the hub
    #[command(after_help = "Examples:\n  switchyard check backup")]
    Backup,
}

impl Action {
    fn question(self) -> CheckRequest {
        let about = |action: AccessAction| CheckRequest { action: action.into(), ..CheckRequest::default() };
        let of_stream = |action, stream| CheckRequest { stream, ..about(action) };
        let of_group = |action, Named { stream, group }| CheckRequest { stream, group, ..about(action) };
        match self {
            Self::Publish { topic } => CheckRequest { topic, ..about(AccessAction::Publish) },
            Self::Subscribe { filters, group } => CheckRequest { filters, group, ..about(AccessAction::Subscribe) },
            Self::Read { stream, filters, group } => {
                CheckRequest { stream, filters, group, ..about(AccessAction::Read) }
            }
            Self::SeeStream { stream } => of_stream(AccessAction::SeeStream, stream),
            Self::SeeGroup(named) => of_group(AccessAction::SeeGroup, named),
            Self::ManageStream { stream } => of_stream(AccessAction::ManageStream, stream),
            Self::AddTopics { filters } => CheckRequest { filters, ..about(AccessAction::AddTopics) },
            Self::ManageGroup(named) => of_group(AccessAction::ManageGroup, named),
            Self::ManageDeadLetters(named) => of_group(AccessAction::ManageDeadLetters, named),
            Self::ManageSessions => about(AccessAction::ManageSessions),
            Self::Backup => about(AccessAction::Backup),
        }
    }
}

impl WhoAmI {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut hub = self.reach.connect().await?;
        let me = hub.ask("WhoAmI", hub.access().who_am_i(WhoAmIRequest {})).await?;
        let told = if self.json { as_json(&me).to_string() } else { show::fields(&rows(&me)) };
        show::print(&told).map(drop)
    }
}

impl Check {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut hub = self.reach.connect().await?;
        let answer = hub.ask("Check", hub.access().check(self.action.question())).await?;
        let reason = reason(&answer);
        let told = match answer.allowed {
            _ if self.json => {
                let reason = Some(reason).filter(|_| !answer.allowed);
                json!({ "allowed": answer.allowed, "reason": reason, "text": answer.text }).to_string()
            }
            true => "allowed".to_owned(),
            false => "denied".to_owned(),
        };
        show::print(&told)?;
        ensure!(answer.allowed, "{reason}: {}", answer.text);
        Ok(())
    }
}

/// The reason as errors name it.
fn reason(answer: &CheckResponse) -> &'static str {
    let name = answer.reason().as_str_name();
    name.strip_prefix(REASON_PREFIX).unwrap_or(name)
}

fn rows(me: &WhoAmIResponse) -> Vec<(&'static str, String)> {
    let mut roles = me.roles.join(" ");
    if me.more_roles {
        roles.push_str(" and more");
    }
    let expiry = me.credential_expiry.as_ref();
    let expires = expiry.map(|expiry| format!("{} (in {})", show::time(expiry), show::left(expiry)));
    let nobody = || "none: this hub has no authentication, and every caller may do everything".to_owned();
    vec![
        ("principal", if me.authenticated { me.principal.clone() } else { nobody() }),
        ("roles", show::or_dash(&roles)),
        ("expires", expires.unwrap_or_else(|| "never".to_owned())),
        ("peer", show::or_dash(&me.peer)),
    ]
}

/// The caller with the names of the contract.
fn as_json(me: &WhoAmIResponse) -> serde_json::Value {
    json!({
        "principal": me.principal,
        "authenticated": me.authenticated,
        "roles": me.roles,
        "more_roles": me.more_roles,
        "credential_expiry": me.credential_expiry.as_ref().map(ToString::to_string),
        "peer": me.peer,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::proto::v1::EndReason;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        action: Action,
    }

    fn question(arguments: &str) -> CheckRequest {
        let words = ["check"].into_iter().chain(arguments.split_whitespace());
        Line::try_parse_from(words).unwrap().action.question()
    }

    #[test]
    fn every_action_of_the_contract_can_be_asked_for() {
        let names =
            |question: &CheckRequest| (question.stream.clone(), question.group.clone(), question.filters.clone());
        let mut asked = Vec::new();
        for (arguments, action, stream, group, filters) in [
            ("publish a.b", AccessAction::Publish, "", "", &[][..]),
            ("subscribe a.> b --group g", AccessAction::Subscribe, "", "g", &["a.>", "b"]),
            ("read s", AccessAction::Read, "s", "", &[]),
            ("read s a.> --group g", AccessAction::Read, "s", "g", &["a.>"]),
            ("see-stream s", AccessAction::SeeStream, "s", "", &[]),
            ("see-group s g", AccessAction::SeeGroup, "s", "g", &[]),
            ("manage-stream s", AccessAction::ManageStream, "s", "", &[]),
            ("add-topics a.>", AccessAction::AddTopics, "", "", &["a.>"]),
            ("manage-group s g", AccessAction::ManageGroup, "s", "g", &[]),
            ("manage-dead-letters s g", AccessAction::ManageDeadLetters, "s", "g", &[]),
            ("manage-sessions", AccessAction::ManageSessions, "", "", &[]),
            ("backup", AccessAction::Backup, "", "", &[]),
        ] {
            let question = question(arguments);
            let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
            assert_eq!(question.action(), action, "{arguments}");
            assert_eq!(names(&question), (stream.to_owned(), group.to_owned(), filters), "{arguments}");
            asked.push(question.action);
        }
        assert_eq!(question("publish a.b").topic, "a.b");
        // Numbers of the contract: none is missing.
        let known = (1..100).filter(|number| AccessAction::try_from(*number).is_ok());
        assert!(known.clone().count() == 11 && known.into_iter().all(|number| asked.contains(&number)), "{asked:?}");
        for arguments in ["subscribe", "add-topics", "publish", "see-group s"] {
            let words = ["check"].into_iter().chain(arguments.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{arguments}");
        }
    }

    #[test]
    fn a_reason_is_named_as_in_errors() {
        let mut answer = CheckResponse::default();
        answer.set_reason(EndReason::TopicDenied);
        assert_eq!(reason(&answer), "TOPIC_DENIED");
    }

    #[test]
    fn a_caller_without_a_credential_that_expires_never_does() {
        let me = WhoAmIResponse { principal: "jwt:a".into(), authenticated: true, ..WhoAmIResponse::default() };
        let shown: std::collections::HashMap<_, _> = rows(&me).into_iter().collect();
        assert_eq!(
            (shown["principal"].as_str(), shown["roles"].as_str(), shown["expires"].as_str()),
            ("jwt:a", "-", "never")
        );
    }
}
