//! The lines of docs/web.md that begin with `$`, run by a shell against a real hub, one after the other.

use std::{
    collections::HashMap,
    io::Read as _,
    process::{Command, Stdio},
};

use crate::harness::{Folder, Process, root};

/// A command of the page, and what the page says that it prints.
struct Example {
    command: String,
    output: String,
}

fn examples() -> Vec<Example> {
    let text = std::fs::read_to_string(root().join("docs/web.md")).expect("docs/web.md");
    let mut examples: Vec<Example> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let mut goes_on = false;
        for line in block.lines().take_while(|line| *line != "```") {
            if let Some(command) = line.strip_prefix("$ ") {
                examples.push(Example { command: command.to_owned(), output: String::new() });
            } else {
                let last = examples.last_mut().expect("a command comes first");
                let part = if goes_on { &mut last.command } else { &mut last.output };
                part.extend(["\n", line]);
            }
            goes_on = line.ends_with('\\');
        }
    }
    examples
}

/// The names of the members of whatever JSON is in a text, and the first value of each, if it is a text.
fn members(text: &str) -> HashMap<&str, &str> {
    let mut members = HashMap::new();
    for (at, _) in text.match_indices("\":") {
        let name = text[..at].rsplit('"').next().expect("one at least");
        let value = text[at + 2..].strip_prefix('"').and_then(|rest| rest.split('"').next());
        members.entry(name).or_insert(value.unwrap_or_default());
    }
    members
}

/// What a command prints; of one that reads a stream without an end, as far as the first subscription.
fn run(command: &str, ticket: &str) -> String {
    let ends = !command.starts_with("curl -N");
    let mut child = Command::new("sh")
        .args(["-c", &format!("curl() {{ command curl --silent --show-error --max-time 30 \"$@\"; }}\n{command}")])
        .env("TICKET", ticket)
        .env("TOKEN", "none")
        .stdout(Stdio::piped())
        .stderr(if ends { Stdio::inherit() } else { Stdio::null() })
        .spawn()
        .expect("a shell");
    let (mut out, mut printed, mut some) = (child.stdout.take().expect("piped"), Vec::new(), [0; 4096]);
    while ends || !String::from_utf8_lossy(&printed).contains("event: subscribed") {
        let read = out.read(&mut some).expect("read");
        if read == 0 {
            break;
        }
        printed.extend_from_slice(&some[..read]);
    }
    if !ends {
        child.kill().ok();
    }
    let status = child.wait().expect("waited for");
    assert!(!ends || status.success(), "{status}: {command}");
    String::from_utf8_lossy(&printed).into_owned()
}

#[test]
fn every_line_of_the_page_works_as_the_page_says() {
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", folder.text()]);
    let (mut examples, mut known, mut count) = (examples(), Vec::<(String, String)>::new(), 0);
    // What the others are about.
    let create = examples.iter().position(|it| it.command.contains("CreateStream")).expect("a stream is made");
    let create = examples.remove(create);
    examples.insert(0, create);
    for Example { command, output } in examples {
        let mut command = command.replace("127.0.0.1:50080", &hub.web_address.to_string());
        for (of_page, of_hub) in &known {
            command = command.replace(of_page, of_hub);
        }
        let ticket = known.iter().rev().find(|(of_page, _)| of_page == "5n0P...").map(|(_, of_hub)| &**of_hub);
        let printed = run(&command, ticket.unwrap_or_default());
        let (says, is) = (members(&output), members(&printed));
        for (name, value) in &says {
            let found = is.get(name).unwrap_or_else(|| panic!("no {name:?} of {command}\n{printed}"));
            if ["cursor", "session", "ticket"].contains(name) {
                known.push(((*value).to_owned(), (*found).to_owned()));
            }
        }
        assert_eq!(is.contains_key("code"), says.contains_key("code"), "{command}\n{printed}");
        count += 1;
    }
    assert!(count > 15, "{count}");
}
