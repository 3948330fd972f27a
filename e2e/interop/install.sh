# Brings the foreign programs. Nothing is started as a service: packages that would
# do so are kept from it, and every server runs in a namespace of the harness only.

PROGRAMS=${XDG_CACHE_HOME:-$HOME/.cache}/weft/interop

# "program:package". What is still missing afterwards is named in evidence/interop.md.
FOREIGN="ip:iproute2 nft:nftables setpriv:util-linux curl:curl ss:iproute2 python3:python3
  nginx:nginx-light apache2:apache2-bin haproxy:haproxy nghttpd:nghttp2-server h2load:nghttp2-client
  node:nodejs java:default-jdk-headless wrk:wrk redis-server:redis-server redis-cli:redis-tools
  psql:postgresql-client mariadbd:mariadb-server-core mariadb:mariadb-client-core memcached:memcached
  nats-server:nats-server rabbitmq-server:rabbitmq-server sshd:openssh-server ssh:openssh-client
  slowhttptest:slowhttptest mvn:maven javac:default-jdk-headless"
POLICY=/usr/sbin/policy-rc.d

install_all() {
  # Debian keeps servers out of an ordinary path.
  export PATH=$PATH:/usr/sbin:/sbin
  mkdir -p "$PROGRAMS"
  foreign_packages
  python_packages
  go_programs
  java_programs
}

foreign_packages() {
  local pair missing="" postgres
  for pair in $FOREIGN; do
    command -v "${pair%%:*}" >/dev/null || missing+=" ${pair#*:}"
  done
  postgres=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
  [ -n "$postgres" ] || missing+=" postgresql"
  python3 -c 'import ensurepip' 2>/dev/null || missing+=" python3-venv"
  [ -n "$missing" ] || return 0
  if ! command -v apt-get >/dev/null; then
    say "not here:$missing (Debian's names); their rows are not tried"
    return 0
  fi
  local guarded=""
  if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\n# Keeps packages from starting services; written for e2e/interop, which removes it.\nexit 101\n' > "$POLICY"
    chmod +x "$POLICY"
    guarded=yes
  fi
  # One package that a machine does not have must not keep the others away.
  # shellcheck disable=SC2086
  with_pulse "installing$missing" install_packages $missing || for package in $missing; do
    install_packages "$package" || say "not installed: $package"
  done
  [ -z "$guarded" ] || rm -f "$POLICY"
}

python_packages() {
  local stamp=$PROGRAMS/venv/requirements.txt
  cmp -s "$here/python/requirements.txt" "$stamp" && return 0
  rm -rf "$PROGRAMS/venv"
  python3 -m venv "$PROGRAMS/venv"
  step "installing Python packages" timeout 600 "$PROGRAMS/venv/bin/pip" install -q --disable-pip-version-check \
    -r "$here/python/requirements.txt"
  cp "$here/python/requirements.txt" "$stamp"
}

# The toolchain's own cache decides whether anything has to be built.
go_programs() {
  mkdir -p "$PROGRAMS/go"
  step "building Go programs" go_build
}

go_build() {
  cd "$here/go"
  timeout 900 go build -o "$PROGRAMS/go/" ./grpcload ./nethttp \
    google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server
}

# grpc-java over Netty, by Maven's own client. A program of its own stands for the row: where
# it could not be made, the row is named as not tried.
java_programs() {
  local made=$PROGRAMS/java
  command -v mvn >/dev/null && command -v javac >/dev/null || return 0
  [ -x "$made/grpc-java" ] && cmp -s "$here/java/pom.xml" "$made/pom.xml" && cmp -s "$here/java/GrpcJava.java" "$made/GrpcJava.java" && return 0
  rm -rf "$made"
  mkdir -p "$made/classes"
  with_pulse "fetching grpc-java" fetch_java "$made" || { say "not fetched: grpc-java, see $made/maven.log"; return 0; }
  step "compiling for grpc-java" javac -d "$made/classes" -cp "$made/lib/*" "$here/java/GrpcJava.java"
  cp "$here/java/pom.xml" "$here/java/GrpcJava.java" "$made/"
  # The program takes the place of this shell, so that a signal to it reaches Java.
  printf '#!/bin/sh\nexec java -cp "%s/lib/*:%s/classes" GrpcJava "$@"\n' "$made" "$made" > "$made/grpc-java"
  chmod +x "$made/grpc-java"
}

fetch_java() {
  timeout 600 mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$1/lib" >"$1/maven.log" 2>&1
}
