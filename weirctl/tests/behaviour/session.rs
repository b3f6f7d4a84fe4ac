//! U1: people log in once; what is kept is theirs alone, and commands beside each other do not end the session.

use weir_control_plane::auth::Role;

use crate::people::PASSWORD;
use crate::program::{Program, mode};
use crate::support::Plane;

#[tokio::test(flavor = "multi_thread")]
async fn u1_a_login_lasts_over_commands_that_run_beside_each_other_and_ends_with_logout() {
    // Access tokens that are over at once: each command trades its refresh token, which may be used once.
    let plane = Plane::start_with(|config| config.auth.access_token_s = 10).await;
    plane.user("ann", Role::Operator).await;
    let program = Program::of(&plane);
    let nobody = program.person(&["whoami"]).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
    assert!(nobody.err.contains("weirctl login"), "{nobody:?}");

    let wrong = program.log_in("ann", "not the password", &[]).await;
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(!program.session_file().exists());
    let right = program.log_in("ann", PASSWORD, &[]).await;
    assert_eq!((right.code, right.out.as_str()), (0, ""), "{right:?}");
    assert!(right.err.contains("as ann (operator)"), "{right:?}");
    assert_eq!(mode(&program.session_file()), 0o600);
    assert_eq!(mode(program.session_file().parent().expect("a folder")), 0o700);

    let (one, two, three) = tokio::join!(
        program.person(&["whoami"]),
        program.person(&["sensors", "--json"]),
        program.person(&["whoami", "--json"]),
    );
    assert_eq!((one.code, two.code, three.code), (0, 0, 0), "{one:?} {two:?} {three:?}");
    assert_eq!(one.out, format!("ann (operator, user) at {}\n", plane.url("")));
    assert_eq!(three.json()[0]["name"], "ann");
    assert_eq!(mode(&program.session_file()), 0o600, "it was written anew");
    let kept = std::fs::read_to_string(program.session_file()).expect("text");
    assert!(!kept.contains(PASSWORD));

    // The session's token goes to the server that gave it, and to no other.
    let elsewhere = program.person(&["--url", "http://127.0.0.1:9", "whoami"]).await;
    assert_eq!(elsewhere.code, 3, "{elsewhere:?}");

    assert_eq!(program.person(&["logout"]).await.code, 0);
    assert!(!program.session_file().exists());
    assert_eq!(program.person(&["whoami"]).await.code, 3);
    assert_eq!(plane.sql("SELECT count(*) FROM session WHERE ended_at IS NULL"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn u8_a_server_is_known_by_its_fingerprint_or_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let plane = Plane::start_with(|config| {
        config.tls.self_signed = true;
        config.tls.state_folder = Some(folder.path().to_owned());
    })
    .await;
    plane.user("ann", Role::Viewer).await;
    let fingerprint = plane.server().tls.as_ref().expect("TLS").fingerprint();
    let program = Program::of(&plane);
    let stranger = program.log_in("ann", PASSWORD, &[]).await;
    assert_eq!(stranger.code, 7, "{stranger:?}");
    let wrong = program.log_in("ann", PASSWORD, &["--fingerprint", &"0".repeat(64)]).await;
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(wrong.err.contains(&fingerprint.replace(':', "").to_lowercase()), "{wrong:?}");
    let right = program.log_in("ann", PASSWORD, &["--fingerprint", &fingerprint]).await;
    assert_eq!(right.code, 0, "{right:?}");
    // It is remembered with the session.
    assert_eq!(program.person(&["whoami"]).await.code, 0);

    let ca = folder.path().join("self-signed.pem");
    let by_authority = program.admin(&["sensors", "--ca-file", ca.to_str().expect("text")]).await;
    assert_eq!(by_authority.code, 0, "{by_authority:?}");
}
