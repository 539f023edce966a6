//! Publishes what the judge says, in the order of its commands, and reports what became of each event.

use std::time::Duration;

use switchyard_client::{Client, Error, ErrorKind, Event, Published, Publishing};
use switchyard_conformance::protocol::{Command, Fate, Outcome, Publish, Report};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{mutant::Mutant, out::Out};

pub(crate) async fn serve(client: Client, mut orders: mpsc::Receiver<Command>, out: Out, mutant: Option<Mutant>) {
    // As many as the queue of the client has.
    let mut answers = JoinSet::new();
    while let Some(command) = next(&mut orders, &mut answers).await {
        let Command::Publish(publish) = command else { continue };
        let mut numbers: Vec<u64> = (publish.first..publish.first + publish.count).collect();
        if mutant == Some(Mutant::Reverse) {
            numbers.reverse();
        }
        for number in numbers {
            if mutant == Some(Mutant::Republish) {
                queue(&client, &publish, number).await.ok();
            }
            match queue(&client, &publish, number).await {
                Ok(publishing) => {
                    let out = out.clone();
                    answers.spawn(async move { say(&out, mutant, number, publishing.await) });
                }
                Err(error) => say(&out, mutant, number, Err(error)),
            }
            while answers.try_join_next().is_some() {}
        }
    }
    while answers.join_next().await.is_some() {}
}

async fn next(orders: &mut mpsc::Receiver<Command>, answers: &mut JoinSet<()>) -> Option<Command> {
    loop {
        tokio::select! {
            command = orders.recv() => return command,
            Some(_) = answers.join_next(), if !answers.is_empty() => {}
        }
    }
}

async fn queue(client: &Client, order: &Publish, number: u64) -> Result<Publishing, Error> {
    let mut event = Event::new(order.topic.as_str()).text(number.to_string());
    if !order.id.is_empty() {
        event = event.id(format!("{}-{number}", order.id));
    }
    if order.only_if_room {
        return client.try_publish(event);
    }
    let mut publish = client.publish(event).deadline(Duration::from_millis(order.deadline_ms));
    if let Some(sequence) = order.if_last_sequence {
        publish = publish.if_last_sequence(sequence);
    }
    publish.queued().await
}

fn say(out: &Out, mutant: Option<Mutant>, number: u64, result: Result<Published, Error>) {
    let mut outcome = Outcome { number, outcome: Fate::Unknown, sequence: 0, duplicate: false, reason: String::new() };
    match result {
        Ok(published) => {
            outcome.outcome = if published.sequence().is_some() { Fate::Stored } else { Fate::Live };
            outcome.sequence = published.sequence().unwrap_or(0);
            outcome.duplicate = published.is_duplicate();
        }
        Err(error) => {
            // Whoever is told that the client is closed has not published.
            outcome.outcome = if error.kind() == ErrorKind::Unknown { Fate::Unknown } else { Fate::Refused };
            error.reason().clone_into(&mut outcome.reason);
        }
    }
    if mutant == Some(Mutant::Lie) {
        (outcome.outcome, outcome.sequence) = (Fate::Stored, outcome.sequence + 1);
    }
    out.say(&Report::Outcome(outcome));
}
