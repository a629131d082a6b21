/* The program that all systems patch: Lua, asked one line at a time. Its state lives in the interpreter's heap. */
#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

int guest_calls; /* what a debugger may write */

static lua_State *state;

const char *guest_answer(const char *chunk);

/* The answer to one chunk of Lua, valid until the next call. */
const char *guest_answer(const char *chunk) {
  if (!state) {
    state = luaL_newstate();
    luaL_openlibs(state);
  }
  guest_calls++;
  lua_settop(state, 0);
  luaL_dostring(state, chunk);
  return luaL_tolstring(state, lua_gettop(state) ? -1 : (lua_pushnil(state), -1), NULL);
}
