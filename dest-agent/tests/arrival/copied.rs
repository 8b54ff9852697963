//! Copies that a source asks for, which tells the truth or lies: what is refused leaves nothing.

use crate::Result;
use crate::agent::Agent;
use crate::program::{Program, until};
use crate::recorded::{Memory, Record, Recorded, take_down};
use anyhow::{bail, ensure};
use engine::image::manifest::Known;
use engine::image::{FILES, Manifest, Manner, Tree, Writer};
use engine::memory::PageSink as _;
use link::{Connection, KnownHosts, Tuning};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use protocol::copies::{Image, Message, Offer, Part, Start};
use protocol::framing;
use protocol::stream::{Copies, Role, StreamHead};
use protocol::version::Offered;
use source_agent::copies::{Line, PAYLOAD_BYTES_MAX, new_id};
use std::path::{Path, PathBuf};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

/// A program that was taken down, an agent, and a line to it.
struct Scene {
    /// It has ended; its files are there.
    _program: Program,
    recorded: Recorded,
    agent: Agent,
    connection: Connection,
    line: Line,
    home: tempfile::TempDir,
}

impl Scene {
    async fn new(policy: &str) -> Result<Self> {
        let mut program = Program::start()?;
        let recorded = take_down(program.pid(), Memory::AllAtOnce)?;
        program.reap()?;
        let agent = Agent::with_policy(policy)?;
        let (connection, line) = call(&agent).await?;
        Ok(Self {
            recorded,
            agent,
            connection,
            line,
            home: tempfile::tempdir()?,
            _program: program,
        })
    }

    fn offer(&self) -> Offer {
        let inventory_bytes = self.recorded.inventory.encoded_len() as u64;
        let memory_bytes = self.recorded.inventory.memory_bytes;
        Offer { count: 2, network_namespace: false, memory_bytes, inventory_bytes }
    }

    async fn is_accepted(&mut self) -> Result {
        self.line.say(Message::Offer(self.offer())).await?;
        self.line.send(self.recorded.inventory.encode_to_vec().into()).await?;
        match self.line.hear(WAIT).await? {
            Message::Accept(_) => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    /// What was recorded, as an image.
    fn image(&self, name: &str, parent: Option<PathBuf>) -> Result<PathBuf> {
        let directory = self.home.path().join(name);
        let mut writer = Writer::create(&directory, &Manner { parent, ..Manner::default() })?;
        let Recorded { inventory, layout, image, records, .. } = &self.recorded;
        writer.shape(layout)?;
        for record in records {
            match record {
                Record::Data { space, address, bytes } => writer.data(*space, *address, bytes)?,
                Record::Zero { space, address, pages } => writer.zero(*space, *address, *pages)?,
                Record::Dropped { space, address, pages } => {
                    writer.dropped(*space, *address, *pages)?;
                }
            }
        }
        let hello = dest_agent::hello::hello()?;
        let known = |of: &Offered| Known { name: of.name.clone(), version: of.version };
        let manifest = Manifest {
            host: hello.encode_to_vec(),
            inventory: Some(inventory.clone()),
            kinds: hello.kinds.iter().map(known).collect(),
            aspects: hello.aspects.iter().map(known).collect(),
            ..Manifest::default()
        };
        let tree = Tree { layout: Some(layout.clone()), image: Some(image.clone()), copied: None };
        writer.finish(&tree, manifest)?;
        Ok(directory)
    }

    async fn send(&mut self, directory: &Path) -> Result {
        let paths = FILES.map(|name| directory.join(name));
        let mut lengths = [0; FILES.len()];
        for (length, path) in lengths.iter_mut().zip(&paths) {
            *length = path.metadata()?.len();
        }
        let [pages_bytes, index_bytes, tree_bytes, manifest_bytes] = lengths;
        let image = Image { pages_bytes, index_bytes, tree_bytes, manifest_bytes };
        self.line.say(Message::Image(image)).await?;
        for (path, length) in paths.iter().zip(lengths) {
            self.line.send_file(path, length).await?;
        }
        Ok(())
    }

    /// Everything that the agent says instead of going on; and that it leaves nothing.
    async fn is_given_up(&mut self) -> Result<String> {
        let said = match self.line.hear(WAIT).await? {
            Message::Refuse(refuse) => refuse.refusals.iter().map(ToString::to_string).collect(),
            Message::Failed(failure) => failure.lines().collect::<Vec<_>>(),
            other => bail!("it goes on with {other:?}"),
        };
        self.nothing_is_left()?;
        Ok(said.join("\n"))
    }

    fn nothing_is_left(&self) -> Result {
        until("the agent to let go", || {
            let (_, children) = self.agent.belongings().ok()?;
            (children == 0 && self.agent.images().ok()?.is_empty()).then_some(())
        })
    }
}

async fn call(agent: &Agent) -> Result<(Connection, Line)> {
    let mut known = KnownHosts::default();
    known.add("agent", agent.fingerprint);
    let (source, tuning) = (&agent.source, Tuning::bulk());
    let connection = link::connect("agent", agent.address, source, &known, &tuning).await?;
    let control = connection.open_control(0, PAYLOAD_BYTES_MAX, WAIT).await?;
    let link::Control { mut sender, receiver, .. } = control;
    let mut head = Vec::new();
    let role = Some(Role::Copies(Copies {}));
    framing::encode(&StreamHead { migration: new_id()?, role }, &mut head)?;
    sender.send(head.into(), WAIT).await?;
    Ok((connection, Line::new(sender, receiver, framing::Decoder::new())))
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_run_at_the_word_of_their_source_and_outlive_the_agent() -> Result {
    let mut scene = Scene::new("").await?;
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    scene.send(&image).await?;
    let mut copies = Vec::new();
    for _ in 0..scene.offer().count {
        let Message::Ready(_) = scene.line.hear(WAIT).await? else { bail!("it is not ready") };
        scene.line.say(Message::Start(Start {})).await?;
        let Message::Runs(runs) = scene.line.hear(WAIT).await? else { bail!("it does not run") };
        copies.push(runs.pid);
    }
    assert!(copies[0] != copies[1], "{copies:?}");
    until("the image to be removed", || scene.agent.images().ok()?.is_empty().then_some(()))?;
    scene.agent.kill_and_start_again()?;
    for pid in copies {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let inside = inside.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
        let original = scene.recorded.layout.processes[0].pid;
        assert_eq!(inside, Some(original), "it has the id that it had");
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        assert!(group.contains("/migrate-"), "it has a control group of its own: {group}");
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_the_word_of_its_source_never_runs() -> Result {
    let mut scene = Scene::new("").await?;
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    scene.send(&image).await?;
    let Message::Ready(_) = scene.line.hear(WAIT).await? else { bail!("it is not ready") };
    scene.connection.close(link::CALLER_CODES, "gone");
    scene.nothing_is_left()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_leaves_while_it_dumps_leaves_nothing() -> Result {
    let mut scene = Scene::new("").await?;
    scene.is_accepted().await?;
    ensure!(scene.agent.images()?.len() == 1, "there is a place for the image");
    scene.connection.close(link::CALLER_CODES, "gone");
    scene.nothing_is_left()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_privileges_are_found_in_the_image() -> Result {
    let mut scene = Scene::new("[default]\nusers = [1000]\n").await?;
    let held = scene.recorded.inventory.privileges.iter_mut();
    held.for_each(|held| held.users = vec![1000; 4]);
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    scene.send(&image).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("runs as user 0, and the destination's policy"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_announced_is_found_before_it_is_opened() -> Result {
    let mut scene = Scene::new("[default]\npaths = [\"/srv\"]\n").await?;
    scene.recorded.inventory.outline = None;
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    scene.send(&image).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("lies where the destination's policy allows none"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_names_another_one_of_this_host_is_given_up() -> Result {
    let mut scene = Scene::new("").await?;
    scene.is_accepted().await?;
    let parent = scene.image("parent", None)?;
    let image = scene.image("image", Some(parent))?;
    scene.send(&image).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("more parents than are read here"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_was_offered_or_is_allowed_is_given_up() -> Result {
    let mut scene = Scene::new("[default]\nmemory_mib_max = 1\n").await?;
    scene.recorded.inventory.memory_bytes = 1 << 20;
    let offer = Offer { memory_bytes: 1, ..scene.offer() };
    scene.line.say(Message::Offer(offer)).await?;
    scene.line.send(scene.recorded.inventory.encode_to_vec().into()).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("has 1 MiB of memory, and 0 MiB of it were offered"), "{told}");

    (scene.connection, scene.line) = call(&scene.agent).await?;
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    scene.send(&image).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("of memory, and the destination's policy allows 1"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_inventory_and_no_image_is_given_up() -> Result {
    let mut scene = Scene::new("").await?;
    let offer = Offer { inventory_bytes: 3, ..scene.offer() };
    scene.line.say(Message::Offer(offer)).await?;
    scene.line.send(b"\xff\xff\xff".as_slice().into()).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("inventory"), "{told}");

    (scene.connection, scene.line) = call(&scene.agent).await?;
    scene.is_accepted().await?;
    let image = scene.image("image", None)?;
    std::fs::write(image.join("tree"), "anything")?;
    scene.send(&image).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("tree"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_was_announced_and_more_than_the_disk_has_is_given_up() -> Result {
    let mut scene = Scene::new("").await?;
    scene.is_accepted().await?;
    let image = Image { pages_bytes: 2, ..Image::default() };
    scene.line.say(Message::Image(image)).await?;
    scene.line.say(Message::Part(Part { bytes: vec![0; 3].into() })).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("more bytes came than were announced"), "{told}");

    (scene.connection, scene.line) = call(&scene.agent).await?;
    scene.is_accepted().await?;
    let image = Image { pages_bytes: u64::MAX, ..Image::default() };
    scene.line.say(Message::Image(image)).await?;
    let told = scene.is_given_up().await?;
    assert!(told.contains("the disk of the destination has"), "{told}");
    Ok(())
}
