//! Where a scenario is played: hub, network, driver and the connection of the judge, and what can be done to each.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpSocket,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    history::{Fact, Tally},
    hub::{Addresses, Hub, Listener},
    process::Driver,
    protocol::Command,
    proxy::{Proxy, free_port},
    recorder::Recorder,
    scenario::{Blow, Counts, DriverStep, GroupSetup, GroupWait, HubStep, Network, Scenario, TokenStep},
    truth::Truth,
};

/// How often the hub is asked what it has.
const SAMPLING: Duration = Duration::from_millis(100);
/// The hub forgets sessions that have ended within this.
const FORGETS: Duration = Duration::from_secs(5);

/// How scenarios are played.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program of the hub.
    pub hub: PathBuf,
    /// The driver, with its arguments.
    pub driver: Vec<String>,
    /// Where its client finds the hub.
    pub listener: Listener,
    /// Whether what repeats does so for long.
    pub is_long: bool,
    /// What a scenario waits for comes within this.
    pub patience: Duration,
}

/// All that a scenario has.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) hub: Hub,
    proxy: Proxy,
    /// Nobody listens there, and nobody else can.
    nowhere: (SocketAddr, TcpSocket),
    driver: Option<Driver>,
    truth: watch::Sender<Option<Truth>>,
    token: Option<String>,
    /// Where the hub is, or was last.
    addresses: Option<Addresses>,
    listener: Listener,
    folder: PathBuf,
    program: Vec<String>,
    patience: Duration,
    streams: Vec<String>,
    groups: Vec<GroupSetup>,
    _sampling: JoinSet<()>,
}

impl Stage {
    pub(crate) async fn new(
        scenario: &Scenario,
        options: &Options,
        folder: &Path,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        let setup = &scenario.hub;
        let hub = Hub::new(&options.hub, folder, &setup.settings, setup.policy.as_deref())?;
        let token = match setup.policy {
            Some(_) => Some(hub.token("judge", &["judge".to_owned()], Duration::from_secs(7200)).await?),
            None => None,
        };
        let truth = watch::Sender::new(None);
        let mut sampling = JoinSet::new();
        sampling.spawn(sample(truth.subscribe(), setup.groups.clone(), recorder.clone()));
        let mut stage = Self {
            proxy: Proxy::start(options.listener, recorder.clone())?,
            nowhere: free_port()?,
            driver: None,
            truth,
            token,
            addresses: None,
            listener: options.listener,
            folder: folder.to_owned(),
            program: options.driver.clone(),
            patience: options.patience,
            streams: Vec::new(),
            groups: setup.groups.clone(),
            _sampling: sampling,
            hub,
            recorder,
        };
        if !setup.absent {
            stage.start_hub().await?;
            for stream in &setup.streams {
                stage.create_stream(&stream.name).await?;
            }
            for group in &setup.groups {
                stage.truth()?.create_group(group).await?;
            }
        }
        stage.start_driver().await?;
        Ok(stage)
    }

    pub(crate) fn truth(&self) -> anyhow::Result<Truth> {
        self.truth.borrow().clone().context("there is no hub")
    }

    async fn start_hub(&mut self) -> anyhow::Result<()> {
        let addresses = self.addresses.insert(self.hub.start().await?);
        self.truth.send_replace(Some(Truth::of(addresses.grpc, self.token.clone())?));
        self.proxy.hub.send_replace(Some(addresses.of(self.listener)));
        Ok(())
    }

    fn hub_is_gone(&self) {
        self.recorder.add(Fact::Broken);
        self.truth.send_replace(None);
    }

    pub(crate) async fn do_to_hub(&mut self, step: HubStep) -> anyhow::Result<()> {
        match step {
            HubStep::Start => self.start_hub().await,
            HubStep::Drain => {
                self.hub_is_gone();
                self.hub.drain().await
            }
            HubStep::Kill => {
                self.hub_is_gone();
                self.hub.kill().await
            }
            HubStep::Freeze => {
                self.recorder.add(Fact::Silent);
                self.hub.freeze()
            }
            HubStep::Thaw => {
                self.recorder.add(Fact::Audible);
                self.hub.thaw()
            }
        }
    }

    pub(crate) async fn create_stream(&mut self, name: &str) -> anyhow::Result<()> {
        self.truth()?.create_stream(name).await?;
        if !self.streams.iter().any(|known| known == name) {
            self.streams.push(name.to_owned());
        }
        self.recorder.add(Fact::Created { stream: name.to_owned() });
        Ok(())
    }

    pub(crate) fn set_network(&self, network: Network) {
        // A client whose own words are swallowed hears the hub.
        self.recorder.add(if network.swallow_down { Fact::Silent } else { Fact::Audible });
        if network.refuse || network.reset || network.cut_after_down > 0 || network.cut_after_up > 0 {
            self.recorder.add(Fact::Broken);
        }
        self.proxy.set(network);
    }

    pub(crate) fn strike(&self, blow: Blow) {
        self.recorder.add(Fact::Broken);
        self.proxy.strike(blow);
    }

    // The driver.

    async fn start_driver(&mut self) -> anyhow::Result<()> {
        let before = self.recorder.now(Tally::drivers);
        let ready = Counts { ready: Some(before + 1), ..Counts::default() };
        let driver = self.driver.insert(Driver::start(&self.program, &self.folder, self.recorder.clone())?);
        tokio::select! {
            waiting = self.recorder.until(self.patience, |tally| tally.lacks(&ready, false)) => {
                waiting.map_err(|_| anyhow::anyhow!("the driver does not say that it is ready"))
            }
            status = driver.ended() => anyhow::bail!("the driver ended at once, with {status}"),
        }
    }

    pub(crate) async fn do_to_driver(&mut self, step: DriverStep) -> anyhow::Result<()> {
        let driver = self.driver.take().context("there is no driver")?;
        match step {
            DriverStep::Restart => driver.kill().await?,
            DriverStep::Next => driver.end().await?,
        }
        self.start_driver().await
    }

    pub(crate) async fn tell(&mut self, mut command: Command) -> anyhow::Result<()> {
        match &mut command {
            Command::Connect(connect) => {
                for address in &mut connect.addresses {
                    *address = match address.as_str() {
                        "proxy" => format!("http://{}", self.proxy.address),
                        "nowhere" => format!("http://{}", self.nowhere.0),
                        other => other.to_owned(),
                    };
                }
            }
            Command::Subscribe(spec) if !spec.position.is_empty() => {
                spec.position = self.folder.join(&spec.position).to_string_lossy().into_owned();
            }
            _ => {}
        }
        self.driver.as_mut().context("there is no driver")?.tell(command).await
    }

    pub(crate) async fn give_token(&mut self, step: &TokenStep) -> anyhow::Result<()> {
        let life = Duration::from_secs(step.life_s);
        let value = self.hub.token(&step.name, &step.roles, life).await?;
        self.tell(Command::Token { value, life_ms: step.is_known.then_some(step.life_s * 1000) }).await
    }

    pub(crate) fn measure(&self) -> anyhow::Result<()> {
        self.recorder.add(self.driver.as_ref().context("there is no driver")?.measure()?);
        Ok(())
    }

    // What is waited for.

    pub(crate) async fn until(&self, counts: &Counts) -> anyhow::Result<()> {
        let patience = counts.within_ms.map_or(self.patience, Duration::from_millis);
        let missing = self.recorder.until(patience, |tally| tally.lacks(counts, false)).await;
        self.reached("until", missing)
    }

    /// Waits until the client has a session, or has none.
    pub(crate) async fn until_up(&self, wanted: bool) -> anyhow::Result<()> {
        let lacks = |tally: &Tally| match tally.is_up() {
            is_up if is_up == wanted => Vec::new(),
            true => vec!["it still has its session".to_owned()],
            false => vec!["it has no session".to_owned()],
        };
        let missing = self.recorder.until(self.patience, lacks).await;
        self.reached(if wanted { "up" } else { "down" }, missing)
    }

    pub(crate) fn check(&self, counts: &Counts) -> anyhow::Result<()> {
        let missing = self.recorder.now(|tally| tally.lacks(counts, true));
        self.reached("check", if missing.is_empty() { Ok(()) } else { Err(missing) })
    }

    fn reached(&self, what: &str, missing: Result<(), Vec<String>>) -> anyhow::Result<()> {
        match missing {
            Ok(()) => {
                self.recorder.add(Fact::Reached(what.to_owned()));
                Ok(())
            }
            Err(missing) => anyhow::bail!("{what}: {}", missing.join(", ")),
        }
    }

    pub(crate) async fn until_group(&self, wait: &GroupWait) -> anyhow::Result<()> {
        let truth = self.truth()?;
        let mut last = String::new();
        let asking = async {
            loop {
                if let Ok(state) = truth.group_state(&wait.stream, &wait.group).await {
                    let is = wait.unacked.is_none_or(|unacked| state.unacked == unacked)
                        && wait.pending.is_none_or(|pending| state.pending == pending)
                        && wait.expired_at_least.is_none_or(|expired| state.expired >= expired);
                    if is {
                        return;
                    }
                    last = format!("{} unacked, {} pending, {} expired", state.unacked, state.pending, state.expired);
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(self.patience, asking).await.is_ok();
        anyhow::ensure!(in_time, "group {}: {last}", wait.group);
        let fact = truth.group(&wait.stream, &wait.group).await?;
        self.recorder.add(fact);
        self.recorder.add(Fact::Reached("group".to_owned()));
        Ok(())
    }

    /// What a stream has now; before it is deleted, and in the end.
    pub(crate) async fn read_stream(&self, name: &str) -> anyhow::Result<()> {
        if let Some(events) = self.truth()?.stored(name).await? {
            self.recorder.add(Fact::Stored { stream: name.to_owned(), events });
        }
        Ok(())
    }

    /// Ends the driver, and reads what the hub has.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.set_network(Network::default());
        if let Some(driver) = self.driver.take() {
            driver.end().await?;
        }
        if self.hub.is_there() {
            self.hub.thaw()?;
        } else {
            self.start_hub().await?;
        }
        // A connection of its own: that of before may have come of age.
        let hub = self.addresses.context("there is no hub")?;
        let truth = Truth::of(hub.grpc, self.token.clone())?;
        self.truth.send_replace(Some(truth.clone()));
        let mut left = 0;
        let gone = async {
            loop {
                left = truth.session_ids().await?.len() as u64;
                if left == 0 {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        if let Ok(result) = timeout(FORGETS, gone).await {
            result?;
        }
        self.recorder.add(Fact::SessionsLeft(left));
        for stream in self.streams.clone() {
            self.read_stream(&stream).await?;
        }
        for group in &self.groups {
            // Its stream may be gone.
            if let Ok(fact) = truth.group(&group.stream, &group.name).await {
                self.recorder.add(fact);
            }
        }
        Ok(())
    }
}

/// Asks the hub again and again what it has sent, and writes down what has changed.
async fn sample(truth: watch::Receiver<Option<Truth>>, groups: Vec<GroupSetup>, recorder: Recorder) {
    let mut last = Vec::new();
    loop {
        sleep(SAMPLING).await;
        let Some(truth) = truth.borrow().clone() else { continue };
        let facts = facts(&truth, &groups).await;
        for fact in &facts {
            if !last.contains(fact) {
                recorder.add(fact.clone());
            }
        }
        last = facts;
    }
}

async fn facts(truth: &Truth, groups: &[GroupSetup]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for group in groups {
        facts.extend(truth.group(&group.stream, &group.name).await);
    }
    for session in truth.session_ids().await.unwrap_or_default() {
        for state in truth.subscriptions(&session).await.unwrap_or_default() {
            facts.push(Fact::Sent {
                session: session.clone(),
                stream: state.stream,
                group: state.group,
                filters: state.filters,
                events: state.sent_events.and_then(|events| u64::try_from(events).ok()).unwrap_or(0),
            });
        }
    }
    facts
}
