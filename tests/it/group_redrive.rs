//! Dead letters that are given back: only to members who want them, and never both there and here.

use switchyard::proto::v1::{AckOutcome, RedriveDeadLettersRequest, RedriveDeadLettersResponse};

use crate::{
    harness::{Folder, event, publish, until},
    workplace::{Member, Place, text},
};

async fn redrive(place: &mut Place) -> RedriveDeadLettersResponse {
    let request = RedriveDeadLettersRequest { stream: "jobs".into(), group: "g".into(), sequences: vec![] };
    place.groups.redrive_dead_letters(request).await.expect("redriven").into_inner()
}

async fn of_topic(place: &Place, topic: &str) -> Member {
    place.member_with(|spec| spec.filters = vec![topic.into()]).await
}

async fn reject(member: &mut Member) {
    let sequence = member.event().await.sequence;
    assert_eq!(member.say(&[sequence], |told| told.set_outcome(AckOutcome::Reject)).await, []);
}

/// A group with a dead letter of `jobs.a` and nobody there.
async fn with_a_letter(folder: &Folder) -> Place {
    let mut place = Place::new(folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    place.publish(&["old"]).await;
    let mut member = of_topic(&place, "jobs.a").await;
    reject(&mut member).await;
    place.until_letters(1).await;
    member.leave().await;
    until("nobody is there", async || place.state().await.members == 0).await;
    place
}

#[tokio::test]
async fn what_the_filters_of_the_members_do_not_take_stays_a_dead_letter() {
    let folder = Folder::new();
    let mut place = with_a_letter(&folder).await;
    let mut other = of_topic(&place, "jobs.b").await;
    let told = redrive(&mut place).await;
    assert_eq!((told.redriven, told.lost, told.unmatched), (0, 0, 1));
    assert_eq!(place.letters().await.len(), 1);
    place.hub.publish(publish(vec![event("jobs.b", "new")])).await.expect("published");
    let event = other.event().await;
    assert_eq!(text(&event), "new", "it gets nothing that it never asked for");
    other.ack(&[event.sequence]).await;
    other.leave().await;

    let mut wanting = of_topic(&place, "jobs.*").await;
    let told = redrive(&mut place).await;
    assert_eq!((told.redriven, told.unmatched), (1, 0));
    let event = wanting.event().await;
    assert_eq!((text(&event), event.attempt), ("old".to_owned(), 1));
    wanting.ack(&[event.sequence]).await;
    assert_eq!(place.letters().await.len(), 0);
    assert_eq!(place.state().await.cursor, 2);
}

#[tokio::test]
async fn what_is_given_back_while_nobody_is_there_waits_for_members_who_want_it() {
    let folder = Folder::new();
    let mut place = with_a_letter(&folder).await;
    let told = redrive(&mut place).await;
    assert_eq!((told.redriven, told.unmatched), (1, 0));
    place.hub.publish(publish(vec![event("jobs.b", "new")])).await.expect("published");
    for _ in 0..2 {
        let mut other = of_topic(&place, "jobs.b").await;
        place.hub.publish(publish(vec![event("jobs.b", "newer")])).await.expect("published");
        loop {
            let event = other.event().await;
            assert_ne!(text(&event), "old");
            other.ack(&[event.sequence]).await;
            if text(&event) == "newer" {
                break;
            }
        }
        other.leave().await;
        place.stop().await;
        place = Place::again(&folder).await;
        let state = place.state().await;
        assert_eq!((state.cursor, state.pending), (0, 1), "it waits, and what came behind it is done");
    }
    let mut wanting = of_topic(&place, "jobs.a").await;
    let event = wanting.event().await;
    assert_eq!((text(&event), event.attempt, event.sequence), ("old".to_owned(), 1, 1));
    wanting.ack(&[1]).await;
    assert_eq!(place.state().await.cursor, 4);
}

#[tokio::test]
async fn what_was_given_up_and_not_buried_before_a_restart_is_listed_though_nobody_is_there() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(3)).await;
    place.publish(&["bad"]).await;
    let mut member = place.member().await;
    member.event().await;
    member.nack(1, 600_000, "broken").await;
    member.leave().await;
    place.stop().await;
    // What it is by other settings is known when they come.
    let mut place = Place::again(&folder).await;
    let group = switchyard::proto::v1::Group {
        stream: "jobs".into(),
        name: "g".into(),
        max_attempts: Some(1),
        dead_letter_stream: "lost".into(),
        ..Default::default()
    };
    let paths = vec!["max_attempts".into(), "dead_letter_stream".into()];
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = switchyard::proto::v1::UpdateGroupRequest { group: Some(group), update_mask };
    place.groups.update_group(request).await.expect("changed");
    let letters = place.letters().await;
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "broken"));
    assert_eq!(place.state().await.cursor, 1);
}

#[tokio::test]
async fn what_was_just_given_up_is_a_dead_letter_for_whoever_asks_next() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    let mut member = place.member().await;
    for n in 1..=20 {
        place.publish(&["bad"]).await;
        reject(&mut member).await;
        assert_eq!(place.letters().await.len(), n);
    }
}
