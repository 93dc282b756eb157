//! Many faults in a row, drawn by chance from a seed that is printed.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    fault::{Act, Fault, Promise},
    scene::Scene,
};

pub(super) const FAULTS: &[Fault] = &[Fault::scene(
    "random",
    "faults that are over within seconds, drawn by chance, one upon the other under one traffic",
    Promise::recovers_within(6000),
    |scene| Box::pin(random(scene)),
)
.in_ci()];

async fn random(scene: &mut Scene) -> anyhow::Result<()> {
    let all = super::all();
    let quick: Vec<&Fault> = all.iter().filter(|fault| fault.quick).collect();
    let mut chance = StdRng::seed_from_u64(scene.settings.seed);
    let (repeat, count) = (scene.settings.repeat, scene.settings.random);
    scene.settings.repeat = 1;
    for number in 1..=count {
        let fault = quick[chance.random_range(0..quick.len())];
        let done = match fault.act {
            Act::Damage(commands) => scene.damage(commands).await,
            Act::Scene(act) => act(scene).await,
        };
        let settled = match done {
            Ok(()) => scene.settle().await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            let seed = scene.settings.seed;
            return Err(error.context(format!(
                "the {number}th fault, {}, after --seed {seed}",
                fault.name
            )));
        }
    }
    scene.settings.repeat = repeat;
    scene.notes.push(format!("{count} faults in a row"));
    Ok(())
}
