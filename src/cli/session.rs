//! `switchyard session`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    pages::{self, List},
    reach::Reach,
    show,
};
use crate::proto::v1::{
    GetSessionRequest, ListSessionsRequest, Session, SessionKind, SubscriptionState, TerminateSessionRequest,
};

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
    reach: Reach,
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
                let mut hub = self.reach.connect().await?;
                hub.change("TerminateSession", hub.sessions().terminate_session(request)).await?;
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
        let mut hub = self.reach.connect().await?;
        let list = List {
            json: self.json,
            head: &["SESSION", "KIND", "PEER", "PRINCIPAL", "CLIENT", "SINCE", "SUBSCRIPTIONS", "WAITING"],
            row,
            object: as_json,
        };
        list.show(u64::MAX, async |(page_size, page_token)| {
            let request = ListSessionsRequest { page_size, page_token };
            let page = hub.ask("ListSessions", hub.sessions().list_sessions(request)).await?;
            Ok((page.sessions, page.next_page_token))
        })
        .await
    }

    async fn get(&self, id: &str) -> anyhow::Result<()> {
        let mut hub = self.reach.connect().await?;
        let mut first = None;
        let subscriptions = pages::all(async |(page_size, page_token)| {
            let request = GetSessionRequest { session_id: id.to_owned(), page_size, page_token };
            let page = hub.ask("GetSession", hub.sessions().get_session(request)).await?;
            first = first.take().or(page.session);
            Ok((page.subscriptions, page.next_page_token))
        })
        .await?;
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
            ("principal", show::or_dash(&session.principal)),
            ("client", show::or_dash(&session.client_name)),
            ("labels", show::or_dash(&labels(&session))),
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

fn row(session: &Session) -> Vec<String> {
    vec![
        session.session_id.clone(),
        kind(session).to_owned(),
        session.peer.clone(),
        show::or_dash(&session.principal),
        show::or_dash(&session.client_name),
        session.create_time.as_ref().map(show::time).unwrap_or_default(),
        session.subscriptions.to_string(),
        show::bytes(session.waiting_bytes),
    ]
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
    let (group, filters) = (show::or_dash(&of.group), show::or_dash(&of.filters.join(" ")));
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
