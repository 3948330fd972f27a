"""What servers need before they start: configurations and files in the place's folder."""

import os
import pathlib
import pwd
import subprocess

from .place import run

SERVERS = pathlib.Path(__file__).resolve().parents[1] / "servers"
SIZES = (0, 1, 10, 1000, 100_000, 1_000_000, 5_000_000)


def pages(where):
    for folder in ("bytes", "www/bytes"):
        (where.folder / folder).mkdir(parents=True, exist_ok=True)
        for size in SIZES:
            (where.folder / folder / str(size)).write_bytes(("0123456789abcdef" * (size // 16 + 1))[:size].encode())
    (where.folder / "www/hello").write_text("hello\n")
    # The same in every place, since Last-Modified and ETag are made of it.
    for file in where.folder.glob("**/bytes/*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    os.utime(where.folder / "www/hello", (1_700_000_000, 1_700_000_000))


def config(where, name):
    pages(where)
    text = (SERVERS / name).read_text().replace("PLACE", str(where.folder))
    (where.folder / name).write_text(text)


def nginx(where):
    if not (where.folder / "tls.pem").exists():
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=app", "-addext", "subjectAltName=DNS:app", "-keyout", str(where.folder / "tls.key"), "-out", str(where.folder / "tls.pem"))
    config(where, "nginx.conf")


def nginx_with_master(where):
    """With a master, which starts new workers at SIGHUP and lets the old ones finish their requests."""
    nginx(where)
    file = where.folder / "nginx.conf"
    file.write_text(file.read_text().replace("master_process off;", "master_process on; user root; worker_processes 1; worker_shutdown_timeout 20s;"))


def apache(where):
    config(where, "apache.conf")


def haproxy(where):
    config(where, "haproxy.cfg")


def sshd(where):
    for name in ("host", "user"):
        file = where.folder / f"{name}_key"
        if not file.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file))
    (where.folder / "authorized").write_text((where.folder / "user_key.pub").read_text())
    config = where.folder / "sshd_config"
    config.write_text(
        f"Port 8022\nHostKey {where.folder}/host_key\nAuthorizedKeysFile {where.folder}/authorized\nStrictModes no\nMaxStartups 500\n"
        f"PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nPidFile {where.folder}/sshd.pid\nSubsystem sftp internal-sftp\n"
        # What the shell of this machine's root reads at its start takes up to a minute for 50 at once.
        f"SetEnv HOME={where.folder}\n")
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    # Newer ones keep an address out whose connections ended early, as resets do.
    spared = "PerSourcePenalties no"
    if subprocess.run(["/usr/sbin/sshd", "-t", "-f", str(config), "-o", spared], capture_output=True, check=False).returncode == 0:
        config.write_text(f"{config.read_text()}{spared}\n")


def postgres_programs():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name))
    return found[-1] if found else pathlib.Path("/usr/lib/postgresql/none/bin")


def postgres_line(programs):
    # It refuses to run as root.
    return ["/usr/bin/setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--", f"{programs}/postgres",
            # 50 at once, while 50 that were reset are still being ended.
            "-c", "max_connections=200", "-D", "PLACE/postgres/data", "-p", "5432", "-h", "0.0.0.0", "-k", "PLACE/postgres", "-c", "ssl=on",
            "-c", "ssl_cert_file=PLACE/postgres/server.pem", "-c", "ssl_key_file=PLACE/postgres/server.key"]


def postgres(where):
    folder = where.folder / "postgres"
    if (folder / "data").exists():
        return
    folder.mkdir()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
        "-subj", "/CN=app", "-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem"))
    user = pwd.getpwnam("postgres")
    for file in (folder, folder / "server.key", folder / "server.pem"):
        os.chown(file, user.pw_uid, user.pw_gid)
    os.chmod(folder / "server.key", 0o600)
    as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]
    run(*as_user, f"{postgres_programs()}/initdb", "-D", str(folder / "data"), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "-N", timeout=90)
    with open(folder / "data/pg_hba.conf", "a", encoding="ascii") as rules:
        rules.write("host all all 0.0.0.0/0 trust\n")


def mariadb(where):
    folder = where.folder / "mysql"
    if folder.exists():
        return
    folder.mkdir()
    run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}", "--skip-test-db", "--auth-root-authentication-method=normal",
        # Three at once would trip over each other's files in the common one.
        f"--tmpdir={folder}", timeout=90)


def rabbitmq(where, name="rabbitmq", plugins="", more=""):
    """Everything that it writes goes into the place's folder, not into the machine's."""
    folder = where.folder / name
    folder.mkdir(exist_ok=True)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 0.0.0.0:5672\nloopback_users.guest = false\nlog.console = true\nlog.file = false\n{more}")
    (folder / "enabled_plugins").write_text(f"[{plugins}].\n")


def rabbitmq_with_stomp(where):
    # A folder of its own: what the other one was killed over is not taken up again.
    rabbitmq(where, "rabbitmq-stomp", "rabbitmq_stomp", "stomp.listeners.tcp.1 = 0.0.0.0:61613\n")


def rabbitmq_line(name="rabbitmq"):
    folder, program = f"PLACE/{name}", rabbitmq_program()
    return ["/usr/bin/env", f"HOME={folder}", "RABBITMQ_HOME=/usr/lib/rabbitmq", f"RABBITMQ_MNESIA_BASE={folder}/mnesia",
            f"RABBITMQ_LOG_BASE={folder}/log", f"RABBITMQ_PID_FILE={folder}/pid", "RABBITMQ_NODENAME=rabbit@localhost",
            f"RABBITMQ_CONFIG_FILE={folder}/rabbitmq.conf", f"RABBITMQ_ENABLED_PLUGINS_FILE={folder}/enabled_plugins",
            f"RABBITMQ_PLUGINS_DIR={program.parent.parent}/plugins", program]


def rabbitmq_program():
    # The command in the path wants to become its own user first.
    found = sorted(pathlib.Path("/usr/lib/rabbitmq").glob("lib/*/sbin/rabbitmq-server"))
    return found[-1] if found else pathlib.Path("/usr/lib/rabbitmq/none/rabbitmq-server")
