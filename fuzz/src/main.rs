//! `tidegate-fuzz TARGET|all SECONDS [SEED]`: a long run. What fails is printed and kept under `fuzz/corpus/`, where
//! every test run tries it again.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use tidegate_fuzz::runner;
use tidegate_fuzz::targets::ALL;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let wanted = |name: &str| args.first().is_some_and(|arg| arg == name || arg == "all");
    let targets: Vec<_> = ALL.iter().filter(|(name, _)| wanted(name)).collect();
    let seconds = args.get(1).and_then(|arg| arg.parse().ok());
    let seed = args.get(2).map_or(Some(1), |arg| arg.parse().ok());
    let (false, Some(seconds), Some(seed)) = (targets.is_empty(), seconds, seed) else {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: tidegate-fuzz all|{} SECONDS [SEED]", names.join("|"));
        return ExitCode::from(2);
    };
    // What a case says is kept; a line for each attempt to make it smaller is not wanted.
    panic::set_hook(Box::new(|_| {}));
    let each = Duration::from_secs(seconds) / targets.len() as u32;
    let mut code = ExitCode::SUCCESS;
    for target in targets {
        match runner::run(*target, seed, u64::MAX, Instant::now() + each) {
            Ok(cases) => println!("{}: {cases} cases in {} s, none failed", target.0, each.as_secs()),
            Err((bytes, why)) => {
                let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.0);
                let file = dir.join(format!("seed-{seed}-{}-bytes", bytes.len()));
                let kept = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, &bytes));
                println!("{}: FAILED: {why}\n  {kept:?}: {}", target.0, file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
