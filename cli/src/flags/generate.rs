//! What `--generate` prints: the man page, and the shells' completions.
//!
//! All of it is made of the command line's own description, so that no flag can be missing.

use std::io::{self, Write};

use clap::{Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// What can be generated.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The man page, for section 1.
    Man,
    /// Completions for a shell.
    Completions(Shell),
}

impl Form {
    pub(super) const ALL: &[Form] = &[
        Form::Man,
        Form::Completions(Shell::Bash),
        Form::Completions(Shell::Zsh),
        Form::Completions(Shell::Fish),
        Form::Completions(Shell::Elvish),
        Form::Completions(Shell::PowerShell),
    ];

    /// As `--generate` takes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Form::Man => "man",
            Form::Completions(Shell::Bash) => "bash",
            Form::Completions(Shell::Zsh) => "zsh",
            Form::Completions(Shell::Fish) => "fish",
            Form::Completions(Shell::Elvish) => "elvish",
            Form::Completions(_) => "powershell",
        }
    }

    /// Prints it for `command` on standard output.
    pub(super) fn print(self, command: Command) -> io::Result<()> {
        let mut text = Vec::new();
        match self {
            Form::Man => man(command, &mut text)?,
            Form::Completions(shell) => {
                let name = command.get_name().to_owned();
                // No value is the name of a file.
                let mut command = command.mut_args(|arg| match arg.get_action().takes_values() {
                    true => arg.value_hint(ValueHint::Other),
                    false => arg,
                });
                clap_complete::generate(shell, &mut command, name, &mut text);
            }
        }
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }
}

fn man(command: Command, out: &mut Vec<u8>) -> io::Result<()> {
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command);
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    let mut end = Roff::new();
    end.control("SH", ["NOTES"]);
    for paragraph in notes.split("\n\n") {
        end.control("PP", []).text([roman(paragraph)]);
    }
    end.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "It was told to end, by SIGTERM or SIGINT."),
        ("1", "It could not start (a taken port, for example), or a thread of its own failed."),
        ("2", "A flag or its value is wrong."),
    ] {
        end.control("TP", []).text([roman(code)]).text([roman(meaning)]);
    }
    end.to_writer(out)
}
