//! dev tool: captures a tree, kills it, builds it again on this host.
use engine::{
    clocks::Clocks,
    freeze,
    image::{Layout, TreeImage, decode},
    kinds::Rules,
    memory::PageSink,
    restore,
    source::{Later, Source},
    stage::Stage,
};
use prost::Message as _;
use std::io;
#[derive(Default)]
struct Recorded(Vec<(u8, u32, u64, Vec<u8>, u64)>);
impl PageSink for Recorded {
    fn data(&mut self, s: u32, a: u64, b: &[u8]) -> io::Result<()> {
        self.0.push((0, s, a, b.to_vec(), 0));
        Ok(())
    }
    fn zero(&mut self, s: u32, a: u64, p: u64) -> io::Result<()> {
        self.0.push((1, s, a, vec![], p));
        Ok(())
    }
    fn dropped(&mut self, s: u32, a: u64, p: u64) -> io::Result<()> {
        self.0.push((2, s, a, vec![], p));
        Ok(())
    }
}
fn chain(e: &dyn std::error::Error) -> String {
    let mut s = e.to_string();
    let mut c = e.source();
    while let Some(x) = c {
        s += &format!(": {x}");
        c = x.source();
    }
    s
}
fn go() -> Result<(), engine::Error> {
    let root: i32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let rounds: usize = std::env::args().nth(2).map_or(1, |t| t.parse().unwrap());
    let rules = Rules::default();
    let t0 = std::time::Instant::now();
    let examined = engine::inventory::examine(root, rules)?;
    println!("inventory {:?}", t0.elapsed());
    for r in &examined.refusals {
        println!("REFUSED {r}");
    }
    for n in &examined.notes {
        println!("note {n}");
    }
    if !examined.refusals.is_empty() {
        std::process::exit(3);
    }
    let mut source = Source::open(root, rules)?;
    let mut rec = Recorded::default();
    let mut stagelayout = Layout::default();
    for _ in 0..rounds {
        stagelayout = source.layout()?;
        let t = std::time::Instant::now();
        let r = source.round(&mut rec)?;
        println!("round {r:?} {:?}", t.elapsed());
        std::thread::sleep(std::time::Duration::from_millis(50));
        println!("peek {}", source.peek()?);
    }
    let t = std::time::Instant::now();
    let frozen = freeze::freeze(root)?;
    println!("freeze {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let layout = source.frozen_layout(&frozen)?;
    println!("layout {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let mut captured = source.capture(&frozen)?;
    println!("capture {:?} {:?}", t.elapsed(), captured.timings);
    let t = std::time::Instant::now();
    let r = source.rest(&frozen, &mut captured, Later::Nothing, &mut rec)?;
    println!("rest {r:?} {:?}", t.elapsed());
    if std::env::var("KEEP").is_ok() {
        frozen.thaw()?;
        return Ok(());
    }
    let pids = frozen.processes().iter().map(|p| p.process.pid).collect::<Vec<_>>();
    let image: TreeImage = decode("tree", &captured.image.encode_to_vec())?;
    println!("image {} layout {}", captured.image.encoded_len(), layout.encoded_len());
    frozen.hold()?.end();
    drop(source);
    for p in &pids {
        let e = std::time::Instant::now();
        while std::path::Path::new(&format!("/proc/{p}")).exists() {
            assert!(e.elapsed().as_secs() < 5, "{p} stays");
        }
    }
    let t = std::time::Instant::now();
    let mut stage = Stage::begin(&stagelayout, Clocks::default())?;
    println!("stage {:?}", t.elapsed());
    let t = std::time::Instant::now();
    stage.apply(&layout)?;
    println!("apply {:?}", t.elapsed());
    let f = stage.filler();
    {
        let f = f.read().unwrap();
        for (k, s, a, b, p) in &rec.0 {
            let r = match k {
                0 => f.data(*s, *a, b),
                1 => f.zero(*s, *a, *p),
                _ => f.dropped(*s, *a, *p),
            };
            if let Err(e) = r {
                println!("fill {}", chain(&e));
            }
        }
    }
    let t = std::time::Instant::now();
    let restored = restore::build(stage, &image)?;
    println!("build {:?} {:?}", t.elapsed(), restored.timings);
    let t = std::time::Instant::now();
    restored.run()?;
    println!("run {:?}", t.elapsed());
    Ok(())
}
fn main() {
    if let Err(e) = go() {
        println!("FAILED {}", chain(&e));
        std::process::exit(1);
    }
}
