"""Fetches tokens and pushes with them, through Authlib and requests-oauthlib, with either client authentication.

Arguments: token URL, push URL, client id; the client's secret is in CLIENT_SECRET. Prints a JSON object a line:
{client, auth, token: {...}, status, err_code}, and with a wrong secret {client, auth, error}.
"""

import json
import os
import sys

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # the test's gateway speaks plain HTTP

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

token_url, push_url, client_id = sys.argv[1:]
secret = os.environ["CLIENT_SECRET"]


def authlib(auth):
    session = AuthlibSession(client_id, secret, token_endpoint_auth_method=auth)
    return session, session.fetch_token(token_url, grant_type="client_credentials")


def requests_oauthlib(auth):
    session = OAuth2Session(client=BackendApplicationClient(client_id=client_id))
    if auth == "client_secret_basic":
        return session, session.fetch_token(token_url, auth=HTTPBasicAuth(client_id, secret))
    return session, session.fetch_token(
        token_url, client_id=client_id, client_secret=secret, include_client_id=True
    )


for client in (authlib, requests_oauthlib):
    for auth in ("client_secret_basic", "client_secret_post"):
        line = {"client": client.__name__, "auth": auth}
        try:
            session, token = client(auth)
            push = session.post(
                push_url,
                data=b'{"SessionId":"s"}',
                headers={
                    "Content-Type": "application/json; charset=utf8",
                    "X-TCCC-PUSH-UUID": f"{client.__name__}-{auth}",
                },
            )
            line |= {"token": dict(token), "status": push.status_code, "err_code": push.json()["ErrCode"]}
        except (OAuthError, OAuth2Error) as error:
            line["error"] = error.error
        print(json.dumps(line))
