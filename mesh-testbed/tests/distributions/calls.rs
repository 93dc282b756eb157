//! Which calls of a plugin an engine makes.

use mesh_testbed::Engine;

/// Where they are noted, inside.
const CALLS: &str = "/opt/cni-calls";

/// Notes each call of `quilt-cni` from now on.
pub(crate) fn note(engine: &Engine) {
    let script = format!(
        r#"cd /opt/cni/bin
mv quilt-cni /opt/quilt-cni
cat >quilt-cni <<'END'
#!/bin/sh
echo "$CNI_COMMAND ${{CNI_NETNS:+NETNS}}" >>{CALLS}
exec /opt/quilt-cni
END
chmod +x quilt-cni
: >{CALLS}"#
    );
    engine.shell(&script).unwrap();
}

/// The calls so far that change something, and whether they named a namespace: `ADD NETNS`, or `DEL ` without one.
pub(crate) fn noted(engine: &Engine) -> Vec<String> {
    let all = engine.shell(&format!("cat {CALLS}")).unwrap();
    let lines = all.lines().filter(|it| *it != "STATUS ");
    lines.map(str::to_owned).collect()
}
