use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const HOUR: Duration = MAX_LIFETIME;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn issuer() -> TokenIssuer {
    TokenIssuer::new(PrivateKey::generate().unwrap(), ISSUER).unwrap()
}

fn sign(issuer: &TokenIssuer, claims: &Claims) -> String {
    let header = Header { kid: Some(issuer.key_id.clone()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, claims, &issuer.encoding).unwrap()
}

fn claims() -> Claims {
    let now = unix_seconds(now());
    Claims {
        iss: ISSUER.into(),
        sub: "system:serviceaccount:default:reviews".into(),
        aud: vec![CONTROL_PLANE_AUDIENCE.into()],
        iat: now,
        nbf: now,
        exp: now + 60,
    }
}

#[test]
fn a_token_says_who_its_bearer_is() {
    let issuer = issuer();
    let token = issuer.issue("default", "reviews", CONTROL_PLANE_AUDIENCE, HOUR, now()).unwrap();
    let bearer = issuer.verifier().unwrap().verify(&token, CONTROL_PLANE_AUDIENCE, now()).unwrap();
    assert_eq!(
        bearer,
        Bearer {
            namespace: "default".into(),
            service_account: "reviews".into(),
            expires: now() + HOUR
        }
    );
}

#[test]
fn a_key_survives_being_persisted() {
    let issuer = issuer();
    let again = TokenIssuer::from_pem(&issuer.key_pem(), ISSUER).unwrap();
    let token = again.issue("a", "b", "x", HOUR, now()).unwrap();
    assert!(issuer.verifier().unwrap().verify(&token, "x", now()).is_ok());
}

#[test]
fn nobody_gets_more_than_an_hour() {
    let issuer = issuer();
    let token = issuer.issue("a", "b", "x", HOUR * 24, now()).unwrap();
    let bearer = issuer.verifier().unwrap().verify(&token, "x", now()).unwrap();
    assert_eq!(bearer.expires, now() + HOUR);
    // Not even with the mesh's own signature.
    let mut long = claims();
    long.exp = long.iat + HOUR.as_secs() + 1;
    let judged =
        issuer.verifier().unwrap().verify(&sign(&issuer, &long), CONTROL_PLANE_AUDIENCE, now());
    assert!(matches!(judged, Err(TokenError::TooLong)));
}

#[test]
fn every_claim_counts() {
    let issuer = issuer();
    let verifier = issuer.verifier().unwrap();
    let judge = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        verifier.verify(&sign(&issuer, &claims), CONTROL_PLANE_AUDIENCE, now())
    };
    assert!(judge(&|_| {}).is_ok());
    assert!(matches!(judge(&|c| c.iss = "https://evil".into()), Err(TokenError::Issuer(_))));
    let other = judge(&|c| c.aud = vec!["vault".into()]);
    assert!(matches!(other, Err(TokenError::Audience { .. })));
    assert!(matches!(judge(&|c| c.aud.clear()), Err(TokenError::Audience { .. })));
    let at = unix_seconds(now());
    assert!(matches!(judge(&|c| c.exp = at), Err(TokenError::Expired)));
    assert!(matches!(judge(&|c| c.nbf = at + 60), Err(TokenError::NotYetValid)));
    assert!(matches!(judge(&|c| c.iat = at + 60), Err(TokenError::NotYetValid)));
    for subject in [
        "reviews",
        "system:serviceaccount:default",
        "system:serviceaccount:default:a:b",
        "system:serviceaccount:default:../x",
        "system:serviceaccount::reviews",
    ] {
        let judged = judge(&|c| c.sub = subject.into());
        assert!(matches!(judged, Err(TokenError::Subject)), "{subject}");
    }
}

#[test]
fn a_stranger_cannot_sign() {
    let ours = issuer();
    let verifier = ours.verifier().unwrap();
    let theirs = issuer();
    let judged = verifier.verify(&sign(&theirs, &claims()), CONTROL_PLANE_AUDIENCE, now());
    assert!(matches!(judged, Err(TokenError::UnknownKey)));

    // Our key's name over their signature.
    let header = Header { kid: Some(ours.key_id.clone()), ..Header::new(Algorithm::ES256) };
    let forged = jsonwebtoken::encode(&header, &claims(), &theirs.encoding).unwrap();
    let judged = verifier.verify(&forged, CONTROL_PLANE_AUDIENCE, now());
    assert!(matches!(judged, Err(TokenError::Signature(_))));
}

/// The public key must not be taken for a shared secret, nor a missing signature for a good one.
#[test]
fn no_other_algorithm_is_believed() {
    let ours = issuer();
    let verifier = ours.verifier().unwrap();
    let header = Header { kid: Some(ours.key_id.clone()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(ours.key.public_key_pem().as_bytes());
    let forged = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
    assert!(verifier.verify(&forged, CONTROL_PLANE_AUDIENCE, now()).is_err());

    let encode = |json: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    let header = encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, ours.key_id));
    let body = encode(serde_json::to_string(&claims()).unwrap());
    for unsigned in [format!("{header}.{body}."), format!("{header}.{body}"), String::new()] {
        assert!(verifier.verify(&unsigned, CONTROL_PLANE_AUDIENCE, now()).is_err());
    }
}

#[test]
fn a_changed_token_is_refused() {
    let issuer = issuer();
    let token = sign(&issuer, &claims());
    let mut parts: Vec<&str> = token.split('.').collect();
    let mut other = claims();
    other.sub = "system:serviceaccount:istio-system:istiod".into();
    let body = serde_json::to_string(&other).unwrap();
    let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(body);
    parts[1] = &body;
    let judged = issuer.verifier().unwrap().verify(&parts.join("."), CONTROL_PLANE_AUDIENCE, now());
    assert!(matches!(judged, Err(TokenError::Signature(_))));
}

#[test]
fn a_bearer_can_see_when_its_token_ends() {
    let issuer = TokenIssuer::new(PrivateKey::generate().unwrap(), "https://mesh").unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let token = issuer.issue("default", "a", "istio-ca", Duration::from_secs(60), now).unwrap();
    assert_eq!(expiry(&format!(" {token}\n")), Some(now + Duration::from_secs(60)));
    assert_eq!(expiry("no token"), None);
    assert_eq!(expiry("a.!!.c"), None);
}
