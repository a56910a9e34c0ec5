//! `tidegate-fuzz TARGET|all SECONDS [SEED]`: a long run. What fails is printed and kept under `fuzz/corpus/`, where
//! every test run tries it again. `tidegate-fuzz keep`: writes the rest of the corpora anew, a short input for each kind
//! of end (`marks`), since another generator makes other messages of the same bytes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io, panic};

use tidegate_fuzz::runner;
use tidegate_fuzz::targets::ALL;

/// Inputs that are looked through for the corpora.
const LOOKED_AT: u64 = 30_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn keep() -> io::Result<()> {
    for target in ALL {
        let dir = corpus(target.0);
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            // What has failed once stays.
            if !entry.file_name().to_string_lossy().starts_with("seed-") {
                fs::remove_file(entry.path())?;
            }
        }
        let kinds = runner::kinds(*target, 1, LOOKED_AT);
        println!("{}: {} kinds", target.0, kinds.len());
        for (kind, bytes) in kinds {
            fs::write(dir.join(kind), bytes)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args == ["keep"] {
        return keep().map_or_else(
            |e| {
                eprintln!("{e}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let wanted = |name: &str| args.first().is_some_and(|arg| arg == name || arg == "all");
    let targets: Vec<_> = ALL.iter().filter(|(name, _)| wanted(name)).collect();
    let seconds = args.get(1).and_then(|arg| arg.parse().ok());
    let seed = args.get(2).map_or(Some(1), |arg| arg.parse().ok());
    let (false, Some(seconds), Some(seed)) = (targets.is_empty(), seconds, seed) else {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: tidegate-fuzz keep | all|{} SECONDS [SEED]", names.join("|"));
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
                let dir = corpus(target.0);
                let file = dir.join(format!("seed-{seed}-{}-bytes", bytes.len()));
                let kept = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, &bytes));
                println!("{}: FAILED: {why}\n  {kept:?}: {}", target.0, file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
