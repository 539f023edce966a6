//! `switchyard session`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::show;
use crate::client::{Target, explain};
use crate::proto::v1::{
    GetSessionRequest, ListSessionsRequest, Session, SessionKind, SubscriptionState, TerminateSessionRequest,
};

/// Subscriptions are asked for so many at a time.
const PAGE: i32 = 1000;

/// Show the clients connected to a hub, and end sessions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only the hub of a session knows it.

Examples:
  switchyard session list
  switchyard session get 3f2a9c04d1e77-2a
  switchyard session terminate 3f2a9c04d1e77-2a --reason 'please update to 2.1'

Each subcommand has its own examples: switchyard session get --help")]
pub struct SessionCommand {
    /// What to do
    #[command(subcommand)]
    action: Action,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the sessions of a hub, oldest first
    #[command(after_help = "Examples:\n  switchyard session list\n  switchyard session list --json")]
    List,
    /// Show one session and how far each of its subscriptions is behind
    #[command(after_help = "Examples:\n  switchyard session get 3f2a9c04d1e77-2a\n  \
        switchyard session get 3f2a9c04d1e77-2a --json")]
    Get {
        /// Its id
        session: String,
    },
    /// End a session; its client sees the reason, and may reconnect
    #[command(after_help = "Examples:\n  switchyard session terminate 3f2a9c04d1e77-2a\n  \
        switchyard session terminate 3f2a9c04d1e77-2a --reason 'please update to 2.1'")]
    Terminate {
        /// Its id
        session: String,
        /// The reason to send to its client
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl SessionCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match &self.action {
            Action::List => self.list().await,
            Action::Get { session } => self.get(session).await,
            Action::Terminate { session, reason } => {
                let request = TerminateSessionRequest { session_id: session.clone(), reason: reason.clone() };
                self.target.sessions().await?.terminate_session(request).await.map_err(|status| explain(&status))?;
                let told = if self.json {
                    json!({ "terminated": session }).to_string()
                } else {
                    format!("terminated {session}")
                };
                show::print(&told).map(drop)
            }
        }
    }

    async fn list(&self) -> anyhow::Result<()> {
        let mut client = self.target.sessions().await?;
        let (mut sessions, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListSessionsRequest { page_size: PAGE, page_token };
            let page = client.list_sessions(request).await.map_err(|status| explain(&status))?.into_inner();
            sessions.extend(page.sessions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if self.json {
            return show::json_lines(sessions.iter().map(as_json));
        }
        let head = ["SESSION", "KIND", "PEER", "PRINCIPAL", "CLIENT", "SINCE", "SUBSCRIPTIONS", "WAITING"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(sessions.iter().map(|session| {
            vec![
                session.session_id.clone(),
                kind(session).to_owned(),
                session.peer.clone(),
                or_dash(&session.principal),
                or_dash(&session.client_name),
                session.create_time.as_ref().map(show::time).unwrap_or_default(),
                session.subscriptions.to_string(),
                show::bytes(session.waiting_bytes),
            ]
        }));
        show::print(&show::table(&rows)).map(drop)
    }

    async fn get(&self, id: &str) -> anyhow::Result<()> {
        let mut client = self.target.sessions().await?;
        let (mut first, mut subscriptions, mut page_token) = (None, Vec::new(), String::new());
        loop {
            let request = GetSessionRequest { session_id: id.to_owned(), page_size: PAGE, page_token };
            let page = client.get_session(request).await.map_err(|status| explain(&status))?.into_inner();
            first = first.or(page.session);
            subscriptions.extend(page.subscriptions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let session = first.unwrap_or_default();
        if self.json {
            let mut object = as_json(&session);
            object["subscriptions"] = subscriptions.iter().map(subscription_json).collect();
            return show::print(&object.to_string()).map(drop);
        }
        let rows = [
            ("session", session.session_id.clone()),
            ("kind", kind(&session).to_owned()),
            ("peer", session.peer.clone()),
            ("principal", or_dash(&session.principal)),
            ("client", or_dash(&session.client_name)),
            ("labels", or_dash(&labels(&session))),
            ("since", session.create_time.as_ref().map(show::time).unwrap_or_default()),
            ("waiting", show::bytes(session.waiting_bytes)),
            ("sent", traffic(session.sent_events, session.sent_events_per_second)),
            ("published", traffic(session.published_events, session.published_events_per_second)),
        ];
        let head = ["SUBSCRIPTION", "WAITING", "CREDIT", "STREAM", "GROUP", "SEQUENCE", "LAG", "FILTERS"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        table.extend(subscriptions.iter().map(subscription_row));
        show::print(&format!("{}\n{}", show::fields(&rows), show::table(&table))).map(drop)
    }
}

fn subscription_row(of: &SubscriptionState) -> Vec<String> {
    let credit = match &of.credit {
        None => "automatic".to_owned(),
        Some(_) if of.credit_blocked => "none, and events wait".to_owned(),
        Some(credit) => format!("{} events, {} bytes", credit.events, credit.bytes),
    };
    let (sequence, lag) = match (of.group_member, of.stream.is_empty()) {
        (false, false) => (of.sequence.to_string(), of.lag.to_string()),
        _ => ("-".to_owned(), "-".to_owned()),
    };
    let stream = if of.stream.is_empty() { "(live)".to_owned() } else { of.stream.clone() };
    let waiting = of.waiting_events.to_string();
    let (group, filters) = (or_dash(&of.group), or_dash(&of.filters.join(" ")));
    vec![of.subscription_id.to_string(), waiting, credit, stream, group, sequence, lag, filters]
}

fn kind(session: &Session) -> &'static str {
    match session.kind() {
        SessionKind::Subscribe => "subscribe",
        SessionKind::Session | SessionKind::Unspecified => "session",
    }
}

/// Name and value pairs, by name.
fn labels(session: &Session) -> String {
    let sorted: BTreeMap<_, _> = session.labels.iter().collect();
    sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn traffic(events: i64, per_second: f64) -> String {
    format!("{events} events, {per_second:.1}/s")
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn as_json(session: &Session) -> Value {
    json!({
        "session_id": session.session_id,
        "kind": kind(session),
        "peer": session.peer,
        "principal": session.principal,
        "client_name": session.client_name,
        "create_time": session.create_time.as_ref().map(ToString::to_string),
        "subscriptions": session.subscriptions,
        "waiting_bytes": session.waiting_bytes,
        "labels": session.labels,
        "sent_events": session.sent_events,
        "published_events": session.published_events,
        "sent_events_per_second": session.sent_events_per_second,
        "published_events_per_second": session.published_events_per_second,
    })
}

fn subscription_json(of: &SubscriptionState) -> Value {
    json!({
        "subscription_id": of.subscription_id,
        "waiting_events": of.waiting_events,
        "waiting_bytes": of.waiting_bytes,
        "credit": of.credit.as_ref().map(|credit| json!({ "events": credit.events, "bytes": credit.bytes })),
        "credit_blocked": of.credit_blocked,
        "stream": of.stream,
        "sequence": of.sequence,
        "lag": of.lag,
        "group_member": of.group_member,
        "filters": of.filters,
        "group": of.group,
        "unacked": of.unacked,
        "sent_events": of.sent_events,
        "events_left": of.events_left,
    })
}
