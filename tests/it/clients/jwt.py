"""An identity provider: writes a JWK Set to the file that the argument names, and prints tokens as JSON objects a line,
{name, token, good}, made with joserfc."""

import base64
import hashlib
import hmac
import json
import sys
import time

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

ALGORITHMS = {
    "rsa": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "p256": ["ES256"],
    "p384": ["ES384"],
    "ed": ["Ed25519", "EdDSA"],
}
keys = {
    "rsa": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "p256": ECKey.generate_key("P-256", {"kid": "p256"}),
    "p384": ECKey.generate_key("P-384", {"kid": "p384"}),
    "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
stranger = RSAKey.generate_key(2048, {"kid": "rsa"})
with open(sys.argv[1], "w") as file:
    json.dump(KeySet(list(keys.values())).as_dict(private=False), file)


def claims(**change):
    now = int(time.time())
    return {"iss": "https://idp", "aud": "trunkline", "iat": now, "nbf": now, "exp": now + 300} | change


def say(name, good, algorithm, kid, key, **change):
    show(name, good, jwt.encode({"alg": algorithm, "kid": kid}, claims(**change), key, algorithms=[algorithm]))


def show(name, good, token):
    print(json.dumps({"name": name, "token": token, "good": good}))


def hmac_under(secret):
    """By hand, since the library will not."""
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "rsa"}, claims())]
    message = b".".join(map(encode, parts))
    return b".".join([message, encode(hmac.digest(secret, message, hashlib.sha256))]).decode()


for kid, algorithms in ALGORITHMS.items():
    for algorithm in algorithms:
        # The newer name of EdDSA (RFC 9864) is not among those that are taken.
        say(algorithm, algorithm != "Ed25519", algorithm, kid, keys[kid])

now = int(time.time())
say("an audience among others", True, "RS256", "rsa", keys["rsa"], aud=["other", "trunkline"])
say("expired within the leeway", True, "RS256", "rsa", keys["rsa"], exp=now - 20)
say("expired", False, "RS256", "rsa", keys["rsa"], exp=now - 90)
say("not yet valid", False, "RS256", "rsa", keys["rsa"], nbf=now + 90)
say("another audience", False, "RS256", "rsa", keys["rsa"], aud="other")
say("another issuer", False, "RS256", "rsa", keys["rsa"], iss="https://other")
say("no algorithm", False, "none", "rsa", keys["rsa"])
show("hmac under the public key", False, hmac_under(keys["rsa"].as_pem(private=False)))
say("a wrong key id", False, "RS256", "p256", keys["rsa"])
say("an unknown key id", False, "RS256", "other", keys["rsa"])
say("a stranger's key", False, "RS256", "rsa", stranger)
