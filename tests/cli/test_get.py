"""`get URL`: the body, the lines on standard error, and curl's exit codes."""

import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from retrykit.cli.main import main
from retrykit.core.listeners import get_listeners
from retrykit.testing import Disconnect, Reply, Reset, Truncated

pytestmark = pytest.mark.usefixtures("no_waits")

SPEAKS_NO_TLS = "TLS failure, WRONG_VERSION_NUMBER; a server that speaks no TLS has a URL that begins with http://"
SECRET = "s3cret"
FULL = Path("/dev/full")


@pytest.fixture
def get(capsysbinary):
    """Runs `get`; gives the exit code, standard output, and the lines of standard error."""

    def get(url, *options):
        code = main(["get", url, *options])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode().splitlines()

    return get


def answering(data):
    """Sends raw bytes in answer to a request, and closes the connection."""

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        writer.close()

    return handler


async def reset_at_once(reader, writer):
    linger_for_0_seconds = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_0_seconds)
    writer.transport.abort()


async def never_answer(reader, writer):
    await reader.read()
    writer.close()


async def greet_in_plain_text(reader, writer):
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


class TestBody:
    def test_it_goes_to_standard_output_as_it_is_and_nothing_else_is_said(self, get, server):
        server.script("/bytes", bytes(range(256)))
        assert get(f"{server.url}/bytes") == (0, bytes(range(256)), [])

    def test_an_empty_one_is_fine(self, get, server):
        server.script("/empty", 204)
        assert get(f"{server.url}/empty") == (0, b"", [])

    def test_a_url_without_a_scheme_gets_http(self, get, server):
        server.script("/hello", "hello")
        url = server.url.removeprefix("http://") + "/hello?next=http://elsewhere"
        assert get(url) == (0, b"hello", [])
        assert server.requests("/hello")[0].query == {"next": "http://elsewhere"}

    def test_a_byte_of_the_url_that_can_t_be_decoded_is_sent(self, get, server):
        server.script("/%FF", "hello")
        assert get(f"{server.url}/\udcff") == (0, b"hello", [])

    def test_the_listeners_are_given_back(self, get, server):
        before = get_listeners()
        server.script("/flaky", 503, "hello")
        get(f"{server.url}/flaky")
        get(f"{server.url}/missing")
        assert get_listeners() == before


class TestAttempts:
    def test_each_that_failed_has_a_line_and_so_has_the_success(self, get, server, no_waits):
        server.script("/flaky", 503, Truncated("hello"), "hello")
        where = f"GET {server.url}/flaky"
        assert get(f"{server.url}/flaky?key={SECRET}") == (
            0,
            b"hello",
            [
                f"{where} 503, next attempt in 1 s",
                f"{where} ClientPayloadError, next attempt in 2 s",
                f"{where} 200, 5 bytes",
            ],
        )
        assert no_waits == [1.0, 2.0]

    def test_one_to_a_host_whose_name_can_t_be_decoded_is_shown_as_well(self, get):
        host = ".".join(["xn--a", *["a" * 60] * 5])  # It is too long to ever reach a name server.
        lines = get(f"http://user:{SECRET}@{host}/x?{SECRET}", "--max-retries", "2")[2]
        assert lines[0] == f"GET http://{host}/x ClientConnectorDNSError, next attempt in 1 s"
        assert lines[1].startswith(f"retrykit: (6) GET http://{host}/x: could not resolve the host's name, ")

    def test_the_success_shows_its_own_status(self, get, server):
        server.script("/flaky", 503, 204)
        assert get(f"{server.url}/flaky")[2][-1] == f"GET {server.url}/flaky 204, 0 bytes"

    def test_a_failed_one_is_reported_before_the_wait(self, server):
        server.script("/flaky", 503)
        command = [sys.executable, "-m", "retrykit", "get", f"{server.url}/flaky", "--base-delay=60", "--timeout=600"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
            assert running.stderr.readline() == f"GET {server.url}/flaky 503, next attempt in 60 s\n".encode()
            assert running.poll() is None
            running.kill()

    def test_max_retries_counts_them_in_total(self, get, server):
        server.script("/down", 503)
        assert get(f"{server.url}/down", "--max-retries", "2")[0] == 22
        assert len(server.requests("/down")) == 2

    def test_base_delay_is_the_first_wait(self, get, server, no_waits):
        server.script("/down", 503)
        get(f"{server.url}/down", "--base-delay", "0.5")
        assert no_waits == [0.5, 1.0]

    def test_timeout_bounds_all_of_them(self, get, server, no_waits):
        server.script("/down", 503)
        code, _, lines = get(f"{server.url}/down", "--timeout", "2")
        assert (code, no_waits) == (22, [1.0])
        assert "timeout=2 s leaves no room for another" in lines[-1]

    def test_timeout_is_30_seconds_where_it_is_not_given(self, get, server, no_waits):
        server.script("/down", 503)
        get(f"{server.url}/down", "--max-retries", "9")
        assert no_waits == [1.0, 2.0, 4.0, 8.0]


class TestExitCodes:
    """Each is curl's; there is one line on standard error, and nothing on standard output."""

    @staticmethod
    def check(ended, code, message):
        assert ended[:2] == (code, b"")
        assert len(ended[2]) == 1
        assert ended[2][0].startswith(f"retrykit: ({code}) ")
        assert message in ended[2][0]

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/hosts"])
    def test_1_for_another_scheme(self, get, url):
        self.check(get(url), 1, "neither http nor https")

    @pytest.mark.parametrize("url", ["", "http://", "http://[::1", "127.0.0.1:99999"])
    def test_3_for_a_malformed_url(self, get, url):
        self.check(get(url), 3, "malformed URL")

    def test_3_for_a_redirect_to_a_malformed_url(self, get, server):
        server.script("/moved", Reply(302, headers={"Location": "http://[::1"}))
        self.check(get(f"{server.url}/moved"), 3, "a redirect to a malformed URL")

    # Neither name ever reaches a name server: one is too long for that, the other has a label that is.
    @pytest.mark.parametrize("name", [".".join(["a" * 60] * 5), "a" * 70 + ".test"], ids=["name", "label"])
    def test_6_for_a_host_that_is_not_resolved(self, get, name):
        self.check(get(f"http://{name}/", "--max-retries", "1"), 6, "could not resolve the host's name")

    def test_7_for_no_connection(self, get, unused_address):
        ended = get(f"http://{unused_address}/x", "--max-retries", "1")
        self.check(ended, 7, f"GET http://{unused_address}/x: could not connect, Connection refused (gave up after 1 ")

    @pytest.mark.parametrize(
        "answer", [b"220 ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], ids=["greeting", "length"]
    )
    def test_8_for_an_answer_that_is_not_http(self, get, listen, answer):
        self.check(get(listen(answering(answer))), 8, "the answer is not HTTP")

    def test_18_for_a_body_cut_short(self, get, server):
        server.script("/cut", Truncated())
        self.check(get(f"{server.url}/cut", "--max-retries", "1"), 18, "the body was cut short")

    @pytest.mark.parametrize("status", [400, 404, 407, 500])
    def test_22_for_an_error_status(self, get, server, status):
        server.script("/error", Reply(status, "the body of the error"))
        self.check(get(f"{server.url}/error"), 22, f"GET {server.url}/error: an error status, {status} ")

    def test_22_for_an_error_status_that_outlived_the_attempts(self, get, server):
        server.script("/down", 503)
        code, out, lines = get(f"{server.url}/down")
        assert (code, out, len(lines)) == (22, b"", 3)
        assert lines[-1].startswith(f"retrykit: (22) GET {server.url}/down: an error status, 503 Service Unavailable (")
        assert lines[-1].endswith(" s: 503, 503, 503)")

    def test_22_says_that_the_server_asks_for_too_long_a_wait(self, get, server):
        server.script("/busy", Reply(429, retry_after=3600))
        self.check(get(f"{server.url}/busy"), 22, "it was asked for a longer wait than max_retry_after=60 s")

    def test_28_for_a_timeout(self, get, listen):
        self.check(get(listen(never_answer), "--timeout", "0.2"), 28, "timeout")

    def test_35_for_a_server_without_tls(self, get, listen):
        self.check(get(f"https://{listen(greet_in_plain_text)}/"), 35, SPEAKS_NO_TLS)

    def test_35_for_a_reset_while_tls_is_agreed_on(self, get, listen):
        ended = get(f"https://{listen(reset_at_once)}/", "--max-retries", "1")
        self.check(ended, 35, "TLS failure, Connection reset by peer")

    def test_47_for_too_many_redirects(self, get, server):
        server.script("/round", Reply(302, headers={"Location": "/round"}))
        self.check(get(f"{server.url}/round"), 47, "too many redirects")

    def test_52_for_no_answer(self, get, server):
        server.script("/silent", Disconnect())
        ended = get(f"{server.url}/silent", "--max-retries", "1")
        self.check(ended, 52, "the server closed the connection without an answer")

    def test_56_for_a_reset(self, get, server):
        server.script("/reset", Reset())
        ended = get(f"{server.url}/reset", "--max-retries", "1")
        self.check(ended, 56, "the connection broke, Connection reset by peer")

    @pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
    def test_60_for_a_certificate_that_is_not_trusted(self, get, listen, tmp_path):
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        ended = get(f"https://{listen(never_answer, ssl=context)}/")
        self.check(ended, 60, "the certificate is not trusted, self-signed certificate; to trust it, give the file of")
        environment = {**os.environ, "SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(Path(__file__).parents[2])}
        address = listen(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), ssl=context)
        command = [sys.executable, "-m", "retrykit", "get", f"https://{address.replace('127.0.0.1', 'localhost')}/"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"hello")

    def test_61_for_a_body_that_is_not_packed_as_it_says(self, get, listen):
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
        self.check(get(listen(answering(answer)), "--max-retries", "1"), 61, "the body can't be decoded")

    def test_130_for_ctrl_c(self, heeds_ctrl_c, server):
        server.script("/down", 503)
        command = [sys.executable, "-m", "retrykit", "get", f"{server.url}/down", "--base-delay=60", "--timeout=600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            running.stderr.readline()
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60) == (b"", b"")
        assert running.returncode == 130

    def test_130_for_ctrl_c_in_this_process(self, heeds_ctrl_c, get, listen):
        async def interrupt(reader, writer):
            os.kill(os.getpid(), signal.SIGINT)
            await never_answer(reader, writer)

        assert get(listen(interrupt)) == (130, b"", [])


class TestOutput:
    """Where standard output can't be written to, the exit code is 23."""

    def test_a_reader_that_left_is_no_reason_to_complain(self, server):
        server.script("/big", b"x" * 1_000_000)
        command = [sys.executable, "-m", "retrykit", "get", f"{server.url}/big"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            running.stdout.close()
            assert running.stderr.read() == b""
        assert running.returncode == 23

    def test_nor_in_this_process(self, get, server, monkeypatch):
        server.script("/hello", "hello")
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            assert get(f"{server.url}/hello") == (23, b"", [])

    @pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")
    def test_a_full_disk_is_reported(self, get, server, monkeypatch):
        server.script("/hello", "hello")
        with FULL.open("w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            ended = get(f"{server.url}/hello")
        assert ended == (23, b"", ["retrykit: (23) the body could not be written, No space left on device"])

    def test_where_it_is_closed_that_is_reported(self, get, server, monkeypatch):
        server.script("/hello", "hello")
        monkeypatch.setattr(sys, "stdout", None)
        closed = "retrykit: (23) standard output is closed; send it to a file (> FILE), or give -o DIR"
        assert get(f"{server.url}/hello") == (23, b"", [closed])

    @pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")
    def test_what_can_t_be_said_is_no_reason_to_fail(self, server):
        server.script("/flaky", 503, "hello")
        command = [sys.executable, "-m", "retrykit", "get", f"{server.url}/flaky", "--base-delay=0"]
        with FULL.open("w") as full:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"hello")

    @pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")
    def test_nor_has_it_another_exit_code_where_nothing_can_be_said_or_written(self, get, server, monkeypatch):
        server.script("/hello", "hello")
        with FULL.open("w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            monkeypatch.setattr(sys, "stderr", output)
            assert get(f"{server.url}/hello")[0] == 23

    def test_where_standard_error_is_closed_nothing_goes_to_the_body(self, get, server, monkeypatch):
        server.script("/flaky", 503, "hello")
        monkeypatch.setattr(sys, "stderr", None)
        assert get(f"{server.url}/flaky")[:2] == (0, b"hello")


class TestWhatIsNotSaid:
    @pytest.mark.parametrize("step", [404, 503, Disconnect(), Reset(), Truncated()], ids=str)
    def test_no_line_has_the_credentials_or_the_query(self, get, server, step):
        server.script("/x", step)
        url = server.url.replace("//", f"//user:{SECRET}@") + f"/x?token={SECRET}"
        code, _, lines = get(url, "--max-retries", "2")
        assert code != 0
        assert f"GET {server.url}/x: " in lines[-1]
        assert SECRET not in "".join(lines)
        assert "Authorization" in server.requests("/x")[0].headers

    @pytest.mark.parametrize("start", ["http://user:{}@[::1/", "ftp://user:{}@127.0.0.1/", "http://user:{}@/"])
    def test_nor_where_the_url_is_wrong(self, get, start):
        code, _, lines = get(start.format(SECRET) + f"?token={SECRET}")
        assert code in {1, 3}
        assert SECRET not in "".join(lines)

    def test_what_a_server_says_does_not_reach_the_terminal_as_control_characters(self, get, listen):
        address = listen(answering(b"HTTP/1.1 404 \x1b[31mRed\x07\xff\r\nContent-Length: 0\r\n\r\n"))
        code, _, lines = get(f"{address}/%1b%0a")
        assert (code, len(lines)) == (22, 1)
        assert lines[0].isprintable()
        assert "[31mRed" in lines[0]


def test_where_an_attempt_went_is_said_once(get, server):
    server.script("/gone", Disconnect())
    code, _, lines = get(f"{server.url}/gone", "--max-retries", "2", "--base-delay", "0")
    assert code == 52
    assert lines[-1].count(f"GET {server.url}/gone") == 1
    assert lines[-1].endswith(": ServerDisconnectedError, ServerDisconnectedError)")


class TestAProxyInTheEnvironment:
    """Other programs would use it."""

    @pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
    def test_where_nothing_can_be_reached_it_is_said_that_it_is_not_used(
        self, get, unused_address, monkeypatch, variable
    ):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        code, _, lines = get(unused_address, "--max-retries", "1")
        assert code == 7
        assert lines[-1].endswith(
            f"; {variable.lower()} is set, and get uses no proxy: a program can, by fetch_bytes(url, proxy=...)"
        )

    def test_of_one_that_is_for_other_hosts_nothing_is_said(self, get, unused_address, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert "proxy" not in get(unused_address, "--max-retries", "1")[2][-1]


class TestAFileInThePlaceOfAURL:
    def test_it_is_said_how_to_fetch_the_urls_in_it(self, get, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("my urls.invalid").write_text("http://127.0.0.1/\n")
        Path("urls.invalid").write_text("http://127.0.0.1/\n")
        _, _, lines = get("urls.invalid", "--max-retries", "1")
        assert lines[-1].endswith("; urls.invalid is a file here: for the URLs in it, write `get - < urls.invalid`")
        _, _, lines = get("my urls.invalid", "--max-retries", "1")
        assert lines[-1].endswith("write `get - < 'my urls.invalid'`")
        _, _, lines = get("urls.invalid", "--max-retries", "1", "-o", "out")
        assert lines[0].endswith("write `get - < urls.invalid`")

    @pytest.mark.parametrize("url", ["other.invalid", "http://urls.invalid/", "x" * 5000])
    def test_of_what_is_no_file_nothing_is_said(self, get, tmp_path, monkeypatch, url):
        monkeypatch.chdir(tmp_path)
        Path("urls.invalid").touch()
        code, _, lines = get(url, "--max-retries", "1")
        assert code == 6
        assert "is a file" not in lines[-1]
