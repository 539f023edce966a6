//! `switchyard group members` and `switchyard group unacked`: what a group on a stream has given to which member.

use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{named::Named, pages::List, reach::Reached, show};
use crate::proto::v1::{GroupMember, ListMembersRequest, ListUnackedRequest, UnackedEvent, UnackedState};

/// Shows the members of a group.
pub(super) async fn members(hub: &mut Reached, named: &Named, json: bool) -> anyhow::Result<()> {
    let list = List {
        json,
        head: &["CLIENT", "SESSION", "SUBSCRIPTION", "PRINCIPAL", "STATE", "WAITING", "UNACKED", "FIRST LEASE"],
        row: member_row,
        object: member_json,
    };
    list.show(u64::MAX, async |(page_size, page_token)| {
        let (stream, group) = (named.stream.clone(), named.group.clone());
        let request = ListMembersRequest { stream, group, page_size, page_token };
        let page = hub.ask("ListMembers", hub.groups().list_members(request)).await?;
        Ok((page.members, page.next_page_token))
    })
    .await
}

/// Shows the events of a group that were delivered and are not done.
pub(super) async fn unacked(hub: &mut Reached, named: &Named, json: bool) -> anyhow::Result<()> {
    let list = List {
        json,
        head: &["SEQUENCE", "STATE", "ATTEMPT", "DUE", "CLIENT", "SESSION", "LAST FAILURE"],
        row: unacked_row,
        object: unacked_json,
    };
    list.show(u64::MAX, async |(page_size, page_token)| {
        let (stream, group) = (named.stream.clone(), named.group.clone());
        let request = ListUnackedRequest { stream, group, page_size, page_token };
        let page = hub.ask("ListUnacked", hub.groups().list_unacked(request)).await?;
        Ok((page.events, page.next_page_token))
    })
    .await
}

fn member_row(member: &GroupMember) -> Vec<String> {
    let state = match &member.reattach_deadline {
        _ if member.connected => "connected".to_owned(),
        Some(deadline) => format!("lost, may return for {}", show::left(deadline)),
        None => "lost".to_owned(),
    };
    let subscription = Some(member.subscription_id).filter(|id| *id != 0).map(|id| id.to_string());
    vec![
        show::or_dash(&member.client_name),
        show::or_dash(&member.session_id),
        subscription.unwrap_or_else(|| "-".to_owned()),
        show::or_dash(&member.principal),
        state,
        member.waiting.to_string(),
        member.unacked.to_string(),
        in_future(member.first_lease_deadline.as_ref()),
    ]
}

/// The member with the names of the contract.
fn member_json(member: &GroupMember) -> Value {
    json!({
        "client_name": member.client_name,
        "session_id": member.session_id,
        "subscription_id": member.subscription_id,
        "principal": member.principal,
        "connected": member.connected,
        "reattach_deadline": member.reattach_deadline.as_ref().map(ToString::to_string),
        "waiting": member.waiting,
        "unacked": member.unacked,
        "first_lease_deadline": member.first_lease_deadline.as_ref().map(ToString::to_string),
    })
}

fn state(event: &UnackedEvent) -> &'static str {
    match event.state() {
        UnackedState::Assigned => "assigned",
        UnackedState::Sent => "sent",
        UnackedState::Waiting => "waiting",
        UnackedState::Ready => "ready",
        UnackedState::Burying => "burying",
        UnackedState::Unspecified => "unknown",
    }
}

fn unacked_row(event: &UnackedEvent) -> Vec<String> {
    let member = event.member.clone().unwrap_or_default();
    vec![
        event.sequence.to_string(),
        state(event).to_owned(),
        event.attempt.to_string(),
        in_future(event.lease_deadline.as_ref().or(event.next_attempt_time.as_ref())),
        show::or_dash(&member.client_name),
        show::or_dash(&member.session_id),
        show::squeezed(&event.last_failure),
    ]
}

/// The event with the names of the contract; of its member what says which it is.
fn unacked_json(event: &UnackedEvent) -> Value {
    let member = event.member.as_ref().map(|member| {
        json!({
            "client_name": member.client_name,
            "session_id": member.session_id,
            "subscription_id": member.subscription_id,
            "principal": member.principal,
        })
    });
    json!({
        "sequence": event.sequence,
        "state": event.state().as_str_name(),
        "attempt": event.attempt,
        "lease_deadline": event.lease_deadline.as_ref().map(ToString::to_string),
        "next_attempt_time": event.next_attempt_time.as_ref().map(ToString::to_string),
        "member": member,
        "last_failure": event.last_failure,
    })
}

fn in_future(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("in {}", show::left(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_to_a_caller_is_a_dash() {
        let member = GroupMember { connected: true, unacked: 3, ..GroupMember::default() };
        assert_eq!(member_row(&member), ["-", "-", "-", "-", "connected", "0", "3", "-"]);
        let lost = GroupMember { client_name: "worker".into(), ..GroupMember::default() };
        assert_eq!(member_row(&lost)[4], "lost");
    }

    #[test]
    fn a_failure_that_has_several_lines_is_shown_in_one() {
        let mut event =
            UnackedEvent { sequence: 7, attempt: 2, last_failure: "no\n room".into(), ..Default::default() };
        event.set_state(UnackedState::Ready);
        assert_eq!(unacked_row(&event), ["7", "ready", "2", "-", "-", "-", "no room"]);
        assert_eq!(unacked_json(&event)["state"], "UNACKED_STATE_READY");
    }
}
