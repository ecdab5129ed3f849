"""A Django project in one file, with sessions in the cache. Its variants differ in the cache's serializer."""

import argparse
import json

import django
from django.conf import settings

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True, help="0 chooses a free one")
parser.add_argument("--redis", required=True)
parser.add_argument("--variant", choices=["pickle", "json"], required=True)
arguments = parser.parse_args()

cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": arguments.redis}
if arguments.variant == "json":
    cache["OPTIONS"] = {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}
settings.configure(
    SECRET_KEY="django secret",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    # Without CsrfViewMiddleware: the tests send no forms.
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={"default": cache},
)
django.setup()

from django.contrib import auth  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.signals import user_logged_in  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.urls import path, register_converter  # noqa: E402
from django.urls.converters import PathConverter  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

# There is no database; a user exists in the session alone.
user_logged_in.disconnect(dispatch_uid="update_last_login")


class AnyPath(PathConverter):
    regex = "(?s:.+)"


register_converter(AnyPath, "any")


def keys(request):
    items = request.session.items()
    return JsonResponse({key: value for key, value in items if not key.startswith("_")})


def user(request):
    return JsonResponse(request.session.get(auth.SESSION_KEY), safe=False)


def set_key(request, key, value):
    request.session[key] = json.loads(value)
    return HttpResponse()


def remove(request, key):
    request.session.pop(key, None)
    return HttpResponse()


def login(request, user):
    backend = "django.contrib.auth.backends.ModelBackend"
    auth.login(request, User(pk=int(user), password="unusable"), backend=backend)
    return HttpResponse()


def logout(request):
    # What django.contrib.auth.logout does besides a signal.
    request.session.flush()
    return HttpResponse()


def is_permanent(request):
    return JsonResponse(not request.session.get_expire_at_browser_close(), safe=False)


def permanent(request, value):
    request.session.set_expiry(None if value == "true" else 0)
    return HttpResponse()


def special_value():
    """What JSON cannot express, or hardly."""
    value = {"big": 2**63 + 1, "z": 1.5, "a": [None, "\u00eb\U0001f980"], "huge": 2**70}
    if arguments.variant == "json":
        return value
    return value | {"tuple": (1, "x"), "set": {7}, "bytes": b"\xff\x00", 5: "integer"}


def special(request):
    if request.method == "POST":
        request.session["special"] = special_value()
    return JsonResponse(repr(request.session.get("special")) == repr(special_value()), safe=False)


urlpatterns = [
    path("", keys),
    path("user", user),
    path("set/<str:key>/<any:value>", set_key),
    path("remove/<str:key>", remove),
    path("login/<str:user>", login),
    path("logout", logout),
    path("permanent", is_permanent),
    path("permanent/<str:value>", permanent),
    path("special", special),
]

server = make_server("127.0.0.1", arguments.port, get_wsgi_application(), threaded=True)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
