//! `cargo xtask`: everything that is done to Weir's sources, each as one command.
//!
//! A command that needs something of the machine calls [`setup`] first, so that any of them works on a
//! fresh clone.
#![forbid(unsafe_code)]

mod api_fuzz;
mod audit;
mod bench;
mod build;
mod cargo;
mod demo;
mod fuzz;
mod interrupt;
mod kernels;
mod sample;
mod screen;
mod setup;
mod soak;
mod test;
mod vendors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Weir's own automation")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Test(test::Args),
    Soak(soak::Args),
    Bench(bench::Args),
    Kernels(kernels::Args),
    Fuzz(fuzz::Args),
    #[command(name = "apifuzz")]
    ApiFuzz(api_fuzz::Args),
    Demo(demo::Args),
    Audit(audit::Args),
    GenerateCapture(sample::Args),
    Vendors(vendors::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::ApiFuzz(args) => api_fuzz::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Audit(args) => audit::run(&args),
        Task::GenerateCapture(args) => sample::run(&args),
        Task::Vendors(args) => vendors::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::failure(&error);
            ExitCode::FAILURE
        }
    }
}
