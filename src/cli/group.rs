//! `switchyard group`.

use std::time::Duration;

use anyhow::{Context, ensure};
use prost_types::FieldMask;
use serde_json::json;

use super::{
    dead_letters::DeadLetters,
    members,
    named::Named,
    pages::{self, Asked, List},
    reach::{Reach, Reached},
    show, value,
};
use crate::proto::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group, GroupState, ListGroupsRequest, SeekGroupRequest,
    UpdateGroupRequest, start_position::Position,
};

/// Create, show, change and delete groups on streams, and handle their dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A subscription that names a group joins it; a group that does not exist is created with the defaults.

Examples:
  switchyard group create orders billing --from earliest --dead-letter-stream lost
  switchyard group list orders
  switchyard group members orders billing
  switchyard group seek orders billing --to 2026-01-31T12:00:00Z
  switchyard group dead-letters list orders billing

Each subcommand has its own examples: switchyard group create --help")]
pub struct GroupCommand {
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
    /// Show the groups of a stream, or of all streams
    #[command(after_help = "Examples:\n  switchyard group list\n  switchyard group list orders --json")]
    List {
        /// Only the groups of this stream
        stream: Option<String>,
    },
    /// Create a group
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Show the settings and the state of a group
    #[command(
        after_help = "Examples:\n  switchyard group get orders billing\n  switchyard group get orders billing --json"
    )]
    Get(Named),
    /// Change settings of a group; all others stay as they are
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Update),
    /// Delete a group; its dead letters stay in their stream
    #[command(after_help = "Examples:\n  switchyard group delete orders billing")]
    Delete(Named),
    /// Move a group to another position in its stream
    #[command(after_help = SEEK_EXAMPLES)]
    Seek(Seek),
    /// Show the members of a group, in the order in which they joined, and what each has
    #[command(after_help = "Examples:\n  switchyard group members orders billing\n  \
        switchyard group members orders billing --json")]
    Members(Named),
    /// Show the events of a group that were delivered and are not done, and which member has each
    #[command(after_help = "Examples:\n  switchyard group unacked orders billing\n  \
        switchyard group unacked orders billing --json")]
    Unacked(Named),
    /// Show, redrive or purge the dead letters of a group
    DeadLetters(DeadLetters),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  switchyard group create orders billing
  switchyard group create orders billing --from earliest --ack-deadline 2m --backoff 1s,10s,1m
  switchyard group create orders billing --max-attempts 3 --dead-letter-stream lost";

const UPDATE_EXAMPLES: &str = "\
Examples:
  switchyard group update orders billing --ack-deadline 5m
  switchyard group update orders billing --max-attempts none --dead-letter-stream none";

const SEEK_EXAMPLES: &str = "\
Examples:
  switchyard group seek orders billing --to earliest
  switchyard group seek orders billing --to 42
  switchyard group seek orders billing --to 2026-01-31T12:00:00Z";

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    named: Named,
    /// Where to start: new, earliest, a sequence, or an RFC 3339 time [default: new]
    #[arg(long, value_name = "PLACE", value_parser = value::group_start)]
    from: Option<Position>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
struct Update {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
struct Seek {
    #[command(flatten)]
    named: Named,
    /// Where to continue: earliest, latest, a sequence (the next event delivered), or an RFC 3339 time
    #[arg(long, value_name = "PLACE", value_parser = value::seek)]
    to: Position,
}

/// What can be set when a group is created, and changed later.
#[derive(Debug, Default, clap::Args)]
struct Settings {
    /// How long a member may take to acknowledge an event [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    ack_deadline: Option<Duration>,
    /// How many times an event is tried before it is a dead letter, or none for no limit [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = value::attempts)]
    max_attempts: Option<i32>,
    /// How long to wait after each failed attempt; the last entry applies to all that follow [default: 1s,5s,30s]
    #[arg(long, value_name = "DURATION,...", value_delimiter = ',', value_parser = value::duration)]
    backoff: Option<Vec<Duration>>,
    /// Limit on unacknowledged events of all members together [default: 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    max_unacked: Option<i32>,
    /// The stream for events that were rejected or failed too often, or none
    #[arg(long, value_name = "STREAM")]
    dead_letter_stream: Option<String>,
}

impl Settings {
    /// Puts what was given into a group, and gives the names of it.
    fn put(&self, group: &mut Group) -> Vec<String> {
        let mut paths = Vec::new();
        let mut given = |path: &str| paths.push(path.to_owned());
        if let Some(deadline) = self.ack_deadline {
            group.ack_deadline = Some(value::wire_duration(deadline));
            given("ack_deadline");
        }
        if let Some(attempts) = self.max_attempts {
            group.max_attempts = Some(attempts);
            given("max_attempts");
        }
        if let Some(backoff) = &self.backoff {
            group.backoff = backoff.iter().copied().map(value::wire_duration).collect();
            given("backoff");
        }
        if let Some(unacked) = self.max_unacked {
            group.max_unacked = unacked;
            given("max_unacked");
        }
        if let Some(stream) = &self.dead_letter_stream {
            // No stream that somebody names `none` can be meant: the word is taken.
            group.dead_letter_stream = Some(stream).filter(|stream| *stream != "none").cloned().unwrap_or_default();
            given("dead_letter_stream");
        }
        paths
    }
}

impl Named {
    fn group(&self) -> Group {
        Group { stream: self.stream.clone(), name: self.group.clone(), ..Group::default() }
    }
}

impl GroupCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut hub = self.reach.connect().await?;
        match &self.action {
            Action::List { stream } => self.list(&mut hub, stream.as_deref().unwrap_or_default()).await,
            Action::Create(create) => self.create(&mut hub, create).await,
            Action::Get(named) => {
                let request = GetGroupRequest { stream: named.stream.clone(), name: named.group.clone() };
                let answer = hub.ask("GetGroup", hub.groups().get_group(request)).await?;
                self.tell(answer.group, "group")
            }
            Action::Update(update) => self.update(&mut hub, update).await,
            Action::Delete(named) => self.delete(&mut hub, named).await,
            Action::Seek(seek) => {
                let request = SeekGroupRequest {
                    stream: seek.named.stream.clone(),
                    name: seek.named.group.clone(),
                    position: Some(value::position(seek.to.clone())),
                };
                let answer = hub.change("SeekGroup", hub.groups().seek_group(request)).await?;
                self.tell(answer.group, "moved")
            }
            Action::Members(named) => members::members(&mut hub, named, self.json).await,
            Action::Unacked(named) => members::unacked(&mut hub, named, self.json).await,
            Action::DeadLetters(command) => command.run(&mut hub, self.json).await,
        }
    }

    async fn list(&self, hub: &mut Reached, stream: &str) -> anyhow::Result<()> {
        let list = List {
            json: self.json,
            head: &["STREAM", "GROUP", "MEMBERS", "CURSOR", "LAG", "PENDING", "UNACKED", "DEAD", "OLDEST"],
            row: |group: &Group| [vec![group.stream.clone()], row(group)].concat(),
            object: as_json,
        };
        list.show(u64::MAX, async |asked| page(hub, stream, asked).await).await
    }

    async fn create(&self, hub: &mut Reached, create: &Create) -> anyhow::Result<()> {
        let mut group = create.named.group();
        create.settings.put(&mut group);
        let request = CreateGroupRequest { group: Some(group), start: create.from.clone().map(value::position) };
        let answer = hub.change("CreateGroup", hub.groups().create_group(request)).await?;
        self.tell(answer.group, "created")
    }

    async fn update(&self, hub: &mut Reached, update: &Update) -> anyhow::Result<()> {
        let mut group = update.named.group();
        let paths = update.settings.put(&mut group);
        ensure!(!paths.is_empty(), "nothing to change: name a setting, such as --ack-deadline 2m");
        let request = UpdateGroupRequest { group: Some(group), update_mask: Some(FieldMask { paths }) };
        let answer = hub.change("UpdateGroup", hub.groups().update_group(request)).await?;
        self.tell(answer.group, "updated")
    }

    async fn delete(&self, hub: &mut Reached, named: &Named) -> anyhow::Result<()> {
        let Named { stream, group } = named;
        let request = DeleteGroupRequest { stream: stream.clone(), name: group.clone() };
        hub.change("DeleteGroup", hub.groups().delete_group(request)).await?;
        let told = if self.json {
            json!({ "stream": stream, "deleted": group }).to_string()
        } else {
            format!("deleted {group} of {stream}")
        };
        show::print(&told).map(drop)
    }

    /// Shows a group, after what was done with it.
    fn tell(&self, group: Option<Group>, done: &str) -> anyhow::Result<()> {
        let group = group.context("the hub did not show the group")?;
        if self.json {
            return show::print(&as_json(&group).to_string()).map(drop);
        }
        let state = group.state.unwrap_or_default();
        let backoff: Vec<String> = group.backoff.iter().map(show::wire_duration).collect();
        let attempts = match group.max_attempts {
            Some(0) => "no limit".to_owned(),
            attempts => attempts.unwrap_or(5).to_string(),
        };
        let letters = Some(group.dead_letter_stream.clone()).filter(|stream| !stream.is_empty());
        let rows = [
            (done, format!("{} of {}", group.name, group.stream)),
            ("members", state.members.to_string()),
            ("cursor", state.cursor.to_string()),
            ("lag", lag(&group).to_string()),
            ("pending", state.pending.to_string()),
            ("unacked", state.unacked.to_string()),
            ("oldest", oldest(&group)),
            ("expired leases", state.expired.to_string()),
            ("dropped", state.dropped.to_string()),
            ("dead letters", dead_letters(&state)),
            ("ack deadline", group.ack_deadline.as_ref().map_or_else(|| "30s".to_owned(), show::wire_duration)),
            ("max attempts", attempts),
            ("backoff", backoff.join(",")),
            ("max unacked", group.max_unacked.to_string()),
            ("dead-letter stream", letters.unwrap_or_else(|| "none".to_owned())),
        ];
        show::print(&show::fields(&rows)).map(drop)
    }
}

/// The groups of a stream.
pub(super) async fn of_stream(hub: &mut Reached, stream: &str) -> anyhow::Result<Vec<Group>> {
    pages::all(async |asked| page(hub, stream, asked).await).await
}

/// A page of the groups of a stream; with an empty name, of all.
async fn page(hub: &mut Reached, stream: &str, asked: Asked) -> anyhow::Result<(Vec<Group>, String)> {
    let (page_size, page_token) = asked;
    let request = ListGroupsRequest { stream: stream.to_owned(), page_size, page_token };
    let page = hub.ask("ListGroups", hub.groups().list_groups(request)).await?;
    Ok((page.groups, page.next_page_token))
}

/// Groups and how far each is.
pub(super) fn table(groups: &[Group]) -> String {
    let head = ["GROUP", "MEMBERS", "CURSOR", "LAG", "PENDING", "UNACKED", "DEAD", "OLDEST"].map(str::to_owned);
    let rows: Vec<_> = [head.to_vec()].into_iter().chain(groups.iter().map(row)).collect();
    show::table(&rows)
}

fn row(group: &Group) -> Vec<String> {
    let state = group.state.unwrap_or_default();
    vec![
        group.name.clone(),
        state.members.to_string(),
        state.cursor.to_string(),
        lag(group).to_string(),
        state.pending.to_string(),
        state.unacked.to_string(),
        state.dead_letters.to_string(),
        oldest(group),
    ]
}

/// Since the hub started, and those that are not stored yet.
fn dead_letters(state: &GroupState) -> String {
    match state.burying {
        0 => state.dead_letters.to_string(),
        waiting => format!("{}, and {waiting} to be stored", state.dead_letters),
    }
}

/// Everything that is not done.
fn lag(group: &Group) -> i64 {
    group.state.map_or(0, |state| state.pending.saturating_add(state.unacked))
}

fn oldest(group: &Group) -> String {
    let time = group.state.and_then(|state| state.oldest_unacked_time);
    time.as_ref().map_or_else(|| "-".to_owned(), |time| format!("{} ago", show::ago(time)))
}

/// The group with the names of the contract.
pub(super) fn as_json(group: &Group) -> serde_json::Value {
    let backoff: Vec<String> = group.backoff.iter().map(ToString::to_string).collect();
    let mut object = json!({
        "stream": group.stream,
        "name": group.name,
        "ack_deadline": group.ack_deadline.as_ref().map(ToString::to_string),
        "max_attempts": group.max_attempts,
        "backoff": backoff,
        "max_unacked": group.max_unacked,
        "dead_letter_stream": group.dead_letter_stream,
    });
    if let Some(state) = &group.state {
        object["state"] = json!({
            "members": state.members,
            "cursor": state.cursor,
            "pending": state.pending,
            "unacked": state.unacked,
            "oldest_unacked_time": state.oldest_unacked_time.as_ref().map(ToString::to_string),
            "expired": state.expired,
            "dropped": state.dropped,
            "lost": state.lost,
            "blocked": state.blocked,
            "dead_letters": state.dead_letters,
            "burying": state.burying,
        });
    }
    object
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn put(arguments: &str) -> (Group, Vec<String>) {
        let words = ["group"].into_iter().chain(arguments.split_whitespace());
        let mut group = Group::default();
        let paths = Line::try_parse_from(words).unwrap().settings.put(&mut group);
        (group, paths)
    }

    #[test]
    fn what_is_given_is_named_and_nothing_else() {
        let (group, paths) = put("--ack-deadline 2m --backoff 1s,500ms --max-unacked 7");
        assert_eq!(paths, ["ack_deadline", "backoff", "max_unacked"]);
        assert_eq!(group.ack_deadline, Some(prost_types::Duration { seconds: 120, nanos: 0 }));
        let backoff: Vec<String> = group.backoff.iter().map(show::wire_duration).collect();
        assert_eq!(backoff, ["1s", "500ms"]);
        assert_eq!((group.max_unacked, group.max_attempts), (7, None));
        assert_eq!(put(""), (Group::default(), Vec::new()));
    }

    #[test]
    fn no_limit_is_not_the_default() {
        let (group, paths) = put("--max-attempts none --dead-letter-stream none");
        assert_eq!(paths, ["max_attempts", "dead_letter_stream"]);
        assert_eq!(group, Group { max_attempts: Some(0), ..Group::default() });
    }

    #[test]
    fn lag_is_all_that_is_not_done() {
        let state = crate::proto::v1::GroupState { pending: 300, unacked: 45, ..Default::default() };
        let group = Group { name: "g".into(), state: Some(state), ..Group::default() };
        assert_eq!(lag(&group), 345);
        assert_eq!(table(&[]), "GROUP  MEMBERS  CURSOR  LAG  PENDING  UNACKED  DEAD  OLDEST\n");
    }
}
