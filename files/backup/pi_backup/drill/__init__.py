"""The restore drill: brings the copies back beside the shop, in containers of its own, and judges what came back."""
